"""Whose credentials a client of an object store has, and newer ones when they run out."""

import contextlib
import http.client
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

# Where object_store itself finds credentials for S3; those that end it renews by their expiry.
_S3_NATIVE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_GOOGLE_NATIVE = (
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SKIP_SIGNATURE",
)
_AZURE_NATIVE = (
    "ACCOUNT_KEY",
    "ACCESS_KEY",
    "MASTER_KEY",
    "SAS_KEY",
    "SAS_TOKEN",
    "TOKEN",
    "CLIENT_SECRET",
    "FEDERATED_TOKEN_FILE",
    "SKIP_SIGNATURE",
    "USE_AZURE_CLI",
    "MSI_ENDPOINT",
    "USE_EMULATOR",
)
# Where machines of a cloud are told who they are, at once.
_METADATA_HOST = "169.254.169.254"
_METADATA_SECONDS = 2.0
# Renewed so long before they end, or when a quarter of their life is left.
_AHEAD_SECONDS = 300.0
# What cannot be renewed yet is not asked for again and again.
_AGAIN_SECONDS = 10.0


class AwsCredentials:
    """What boto3 finds: `~/.aws` with its profiles, roles and sessions, or the machine's own role.

    obstore calls it for the credentials of a request, whenever those that it has are about to end.

    Raises ConfigError where there are none, or no such profile.
    """

    def __init__(self, profile: str | None, url: str) -> None:
        self._profile = profile
        self._url = url
        self._lock = threading.Lock()
        self.region: str | None = None
        """That of the profile."""
        self.endpoint: str | None = None
        """Likewise; of the environment the caller knows."""
        self._current: dict[str, Any] = {}
        self._ends = self._renew_at = 0.0
        self._fetch()

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            now = time.time()
            if now >= self._renew_at:
                try:
                    self._fetch()
                except ConfigError:
                    if now >= self._ends:
                        raise
                    self._renew_at = now + _AGAIN_SECONDS
            return self._current

    @property
    def key(self) -> str:
        """Of the credentials at hand: others have another."""
        return f"{self._current['access_key_id']} {self._current['secret_access_key']} {self._current['token']}"

    def renew(self, refused: str) -> bool:
        """Look for credentials other than those of this `key`, which were refused. Whether there are any."""
        with self._lock:
            if self.key == refused:
                self._fetch()
            return self.key != refused

    def _fetch(self) -> None:
        session = self._session()
        try:
            credentials = session.get_credentials()
            frozen = credentials.get_frozen_credentials() if credentials is not None else None
        except Exception as error:  # of botocore, of the HTTP library, of a program that the profile names
            raise ConfigError(f"{self._url}: no credentials: {_line(error)}; log in again, then run again") from error
        if frozen is None or not frozen.access_key or not frozen.secret_key:
            raise ConfigError(
                f"{self._url}: no credentials in the environment (AWS_ACCESS_KEY_ID, ...), in ~/.aws or of this "
                "machine; set AWS_SKIP_SIGNATURE=true, or storage.anonymous, for a public bucket"
            )
        # As the AWS CLI does: botocore has no other name for it.
        expires: datetime | None = getattr(credentials, "_expiry_time", None)
        now = time.time()
        self._ends = expires.timestamp() if expires else float("inf")
        left = self._ends - now
        # Of those that were handed out shortly before their end, the next may not be there before it.
        self._renew_at = max(self._ends - min(_AHEAD_SECONDS, left / 4), now + min(_AGAIN_SECONDS, max(left, 0) / 2))
        self._current = {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": expires.astimezone(UTC) if expires else None,
        }

    def _session(self) -> Any:
        """Of botocore, with all that its files say now. Raises ConfigError for a profile that they do not have."""
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        session = Session(profile=self._profile)
        try:
            profile = session.get_scoped_config()
            services = session.full_config.get("services", {}).get(profile.get("services"), {})
            self.endpoint = services.get("s3", {}).get("endpoint_url") or profile.get("endpoint_url")
            self.region = session.get_config_variable("region")
        except BotoCoreError as error:
            raise ConfigError(f"{self._url}: {_line(error)}; see to ~/.aws and storage.profile") from None
        return session


def static_keys() -> str:
    """The keys of the environment, which do not end by themselves; empty where it has none."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return " ".join(os.environ.get(name, "") for name in names).strip()


def needs_boto3(profile: str | None) -> bool:
    """Whether credentials for S3 are where object_store itself does not look."""
    return profile is not None or not any(variable in os.environ for variable in _S3_NATIVE)


def refuse_no_google(url: str) -> None:
    """Raise ConfigError where Google Cloud Storage would be asked in vain: object_store looks for long."""
    if any(variable in os.environ for variable in _GOOGLE_NATIVE):
        return
    with contextlib.suppress(RuntimeError):  # a user without a home, as in containers
        folder = os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config/gcloud"
        if Path(folder, "application_default_credentials.json").exists():
            return
    host = os.environ.get("GCE_METADATA_HOST", _METADATA_HOST)
    if not _is_there(host, "/computeMetadata/v1/", {"Metadata-Flavor": "Google"}):
        raise ConfigError(
            f"{url}: no credentials for Google Cloud Storage: set GOOGLE_APPLICATION_CREDENTIALS, run `gcloud auth "
            "application-default login`, or set storage.anonymous for a public bucket"
        )


def refuse_no_azure(url: str) -> None:
    """The same for Azure."""
    names = {name.removeprefix("AZURE_").removeprefix("STORAGE_") for name in os.environ if name.startswith("AZURE_")}
    if names & {*_AZURE_NATIVE} or any(name in os.environ for name in ("IDENTITY_ENDPOINT", "MSI_ENDPOINT")):
        return
    if not _is_there(_METADATA_HOST, "/metadata/instance?api-version=2021-02-01", {"Metadata": "true"}):
        raise ConfigError(
            f"{url}: no credentials for Azure: set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or "
            "AZURE_CLIENT_ID with AZURE_CLIENT_SECRET and AZURE_TENANT_ID, or storage.anonymous for a public container"
        )


def _is_there(host: str, path: str, headers: Mapping[str, str]) -> bool:
    """Whether this machine is one of the cloud whose metadata server answers so."""
    connection = http.client.HTTPConnection(host, timeout=_METADATA_SECONDS)
    try:
        connection.request("GET", path, headers=dict(headers))
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
