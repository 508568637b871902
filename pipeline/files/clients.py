"""Clients of object stores, made as the URL, the `storage` section and the environment say."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from obstore import exceptions
from obstore.store import ObjectStore, from_url

from pipeline.errors import ConfigError
from pipeline.files.credentials import AwsCredentials, needs_boto3, refuse_no_azure, refuse_no_google, static_keys
from pipeline.files.secret_urls import credentials_refused, refuse_credentials
from pipeline.storage import Storage, checked_endpoint

_S3 = ("s3", "s3a")
_AZURE = ("az", "abfs", "abfss")
SCHEMES = (*_S3, "gs", *_AZURE, "http", "https")

_CONNECT_SECONDS = 10.0
_REQUEST_SECONDS = 60.0
# The first pause between two tries, and the longest. Each is drawn between the first and three times the one before.
_FIRST_PAUSE = timedelta(milliseconds=100)
_LONGEST_PAUSE = timedelta(seconds=15)
_GROWTH = 3
# Time ends the repeating, not a number of tries.
_MANY = 1_000_000

# Variables that object_store takes an address from, the first of those that are set; it ends in a panic where one has
# no scheme.
_FIRST_ENDPOINT = "AWS_ENDPOINT_URL_S3"  # and before what it is given
_S3_ENDPOINTS = (_FIRST_ENDPOINT, "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_AZURE_ENDPOINTS = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")


@dataclass(frozen=True)
class Client:
    """Clients of obstore for one URL, and what their requests are signed with."""

    url: str
    storage: Storage
    config: Mapping[str, Any]
    """Of a store of obstore, as its provider has it."""
    credentials: AwsCredentials | None
    """None where object_store sees to them, or none are used."""
    static: str
    """`static_keys` when it was made."""

    @cached_property
    def plain(self) -> ObjectStore:
        """Makes each request once."""
        return self._make({"max_retries": 0})

    @cached_property
    def patient(self) -> ObjectStore:
        """Repeats requests by itself, for what takes several of them: all would begin anew for one that failed.

        Nothing interrupts it, signals neither.
        """
        return self._make(
            {
                "max_retries": _MANY,
                "retry_timeout": timedelta(seconds=self.storage.patience_s),
                "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": _GROWTH},
            }
        )

    def _make(self, retry: Any) -> ObjectStore:
        patience_s = self.storage.patience_s
        try:
            return from_url(
                _full(self.url),
                retry_config=retry,
                client_options={
                    "allow_http": True,  # the URL or the endpoint says whether it is used
                    "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, patience_s)),
                    "timeout": timedelta(seconds=min(_REQUEST_SECONDS, patience_s)),
                },
                **self.config,
            )
        except (exceptions.BaseError, ValueError) as error:
            line = str(error).partition("\n")[0].strip(" :")
            raise ConfigError(f"{self.url}: {line}; see to the URL and the environment") from error

    def has_newer(self, refused: str, have_ended: bool) -> bool:
        """Whether there are, or may be, other credentials than those that were refused.

        Args:
            refused: `key` then.
            have_ended: whether the server says that the credentials are the matter.
        """
        if self.credentials is not None:
            return self.credentials.renew(refused)
        if self.static or static_keys():
            return static_keys() != self.static
        return have_ended  # object_store has more of them, where they are those of a role

    @property
    def key(self) -> str:
        """Of the credentials at hand: others have another."""
        return self.credentials.key if self.credentials else ""


def refuse_url(url: str) -> None:
    """Raise ConfigError for a URL that cannot be one of an object store."""
    refuse_credentials(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"{url}: no URL ({error}); correct it") from None
    if parts.query or parts.fragment:
        raise credentials_refused(url)
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"{url}: {parts.scheme}:// cannot be opened; known are {', '.join(SCHEMES)} and folders")


def make_client(url: str, storage: Storage, credentials: AwsCredentials | None = None) -> Client:
    """The client for all below a URL.

    Args:
        credentials: those that it is to have, for S3; by default they are looked for.

    Raises ConfigError naming what is missing or wrong.
    """
    scheme = urlsplit(url).scheme
    if scheme in _S3:
        if credentials is None and not storage.anonymous and needs_boto3(storage.profile):
            credentials = _boto3(url, storage)
        config = _s3_config(url, storage, credentials)
    else:
        _refuse_s3_options(url, storage)
        config = _other_config(url, scheme, storage)
    return Client(url, storage, config, credentials, static_keys())


def _full(url: str) -> str:
    """`abfs://container@account/folder` as object_store reads it: with the host of the account."""
    parts = urlsplit(url)
    if parts.username and parts.hostname and "." not in parts.hostname:
        host = f"{parts.username}@{parts.hostname}.dfs.core.windows.net"
        return parts._replace(netloc=host).geturl()
    return url


def _s3_config(url: str, storage: Storage, credentials: AwsCredentials | None) -> dict[str, Any]:
    endpoint, region = _endpoint(url, storage, _S3_ENDPOINTS), storage.region
    if credentials is not None:
        endpoint = endpoint or credentials.endpoint
        region = region or (None if _has_region() else credentials.region)
    return {
        **({"endpoint": endpoint} if endpoint else {}),
        **({"region": region} if region else {}),
        **({"skip_signature": True} if storage.anonymous else {}),
        **({"credential_provider": credentials} if credentials else {}),
    }


def _other_config(url: str, scheme: str, storage: Storage) -> dict[str, Any]:
    if scheme.startswith("http"):
        if storage.endpoint or storage.anonymous:
            raise ConfigError(
                f"{url}: the URL of a web server says all; leave out storage.endpoint and storage.anonymous"
            )
        return {}
    config: dict[str, Any] = {"skip_signature": True} if storage.anonymous else {}
    if scheme == "gs":
        if storage.endpoint:
            config["base_url"] = storage.endpoint
        if not storage.anonymous:
            refuse_no_google(url)
    elif scheme in _AZURE:
        if endpoint := _endpoint(url, storage, _AZURE_ENDPOINTS):
            config["endpoint"] = endpoint
        if not storage.anonymous:
            refuse_no_azure(url)
    return config


def _refuse_s3_options(url: str, storage: Storage) -> None:
    for name in ("profile", "region"):
        if getattr(storage, name) is not None:
            raise ConfigError(f"{url}: storage.{name} is for s3://; leave it out")


def _endpoint(url: str, storage: Storage, variables: tuple[str, ...]) -> str | None:
    """That of the section, else of the environment. Raises ConfigError for one that is no URL."""
    if storage.endpoint:
        first = os.environ.get(_FIRST_ENDPOINT)
        if _FIRST_ENDPOINT in variables and first and first.rstrip("/") != storage.endpoint:
            raise ConfigError(
                f"{url}: {_FIRST_ENDPOINT}={first} would go before storage.endpoint; set AWS_ENDPOINT_URL in its place"
            )
        return storage.endpoint
    for variable in variables:
        if value := os.environ.get(variable):
            try:
                return checked_endpoint(value)
            except ValueError as error:
                raise ConfigError(f"{url}: {variable}={value}: {error}") from None
    return None


def _has_region() -> bool:
    return "AWS_REGION" in os.environ or "AWS_DEFAULT_REGION" in os.environ


def _boto3(url: str, storage: Storage) -> AwsCredentials | None:
    """Credentials that boto3 finds. None where there is no boto3: object_store looks where it can."""
    try:
        return AwsCredentials(storage.profile, url)
    except ImportError:
        if storage.profile:
            raise ConfigError(f"{url}: storage.profile needs the package boto3: pip install boto3") from None
        return None
