"""How a place that is not on this machine is reached: which server, whose credentials, how long to try."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pipeline.errors import ConfigError, in_words

PATIENCE_S = 180.0


def checked_endpoint(endpoint: str) -> str:
    """The URL of a server. Raises ValueError for what is none, and for one with a secret in it."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            "write an endpoint with its scheme, such as http://localhost:9000 or https://minio.example.org"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an endpoint has no user, query or fragment: give credentials in a profile or the environment")
    return endpoint.rstrip("/")


class Storage(BaseModel):
    """Of a URL, what the URL does not say; what is left out comes from the environment, `~/.aws` or the machine.

    It decides nothing about tokens and is never stored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: Annotated[str, AfterValidator(checked_endpoint)] | None = None
    """URL of the server, for one that is not the provider's own."""
    profile: str | None = None
    """Of `~/.aws`: the credentials, region and endpoint that it names; goes before keys in the environment. S3 only."""
    region: str | None = None
    """Of the bucket. S3 only."""
    anonymous: bool = False
    """Ask without credentials: for what is public."""
    patience_s: Annotated[float, Field(gt=0, le=86400)] = PATIENCE_S
    """Seconds for which a request that comes to nothing is repeated, with growing pauses."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name != "anonymous":
            raise ValueError("true or false does not belong here; quote the word if a text is meant")
        return value


def storage_of(options: "Mapping[str, Any] | Storage | None") -> Storage:
    """Options by name as a Storage. Raises ConfigError for unknown ones, and for values that cannot be."""
    if isinstance(options, Storage):
        return options
    try:
        return Storage.model_validate(dict(options or {}))
    except ValidationError as error:
        detail: Any = error.errors()[0]
        name = ".".join(map(str, detail["loc"]))
        known = ", ".join(Storage.model_fields)
        what = f"unknown; known are {known}" if detail["type"] == "extra_forbidden" else in_words(detail)
        raise ConfigError(f"storage: {name}: {what} (got {detail['input']!r})") from None


def storage_from_words(words: tuple[str, ...]) -> Storage:
    """`key=value` texts of a command line as a Storage. Raises ConfigError."""
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--storage {word!r}: write it as key=value, such as endpoint=http://localhost:9000")
        options[key.strip()] = value.strip()
    return storage_of(options)
