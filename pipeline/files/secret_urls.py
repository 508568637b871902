"""URLs with something that may be a secret: names of parts, commit records and messages would carry it on."""

from pipeline.errors import ConfigError
from pipeline.redaction import has_credentials, redacted_place


def refuse_credentials(url: str, field: str = "") -> None:
    """Raise ConfigError for a URL with a user, a password, a query or a fragment, without repeating them.

    Args:
        field: of the configuration, that holds it.
    """
    if has_credentials(url):
        raise credentials_refused(url, field)


def credentials_refused(url: str, field: str = "") -> ConfigError:
    """The error to raise for such a URL."""
    return ConfigError(
        f"{field}{': ' if field else ''}{redacted_place(url)}: a URL here has no user, query or fragment; put "
        "credentials into the environment"
    )
