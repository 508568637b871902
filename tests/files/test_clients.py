"""Which URLs and endpoints can be used, and what is said of those that cannot."""

import time
from pathlib import Path

import pytest
from fixtures_s3 import S3, Proxy

from pipeline.errors import ConfigError
from pipeline.files.clients import make_client
from pipeline.files.objects import ObjectFiles
from pipeline.storage import Storage

pytest_plugins = ["fixtures_s3"]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of any cloud."""
    import os

    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "GCE_", "CLOUDSDK_", "IDENTITY_", "MSI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("endpoint", ["localhost:9000", "minio.example.org", "//minio", "ftp://minio"])
def test_an_endpoint_without_its_scheme_is_refused(bare: pytest.MonkeyPatch, variable: str, endpoint: str) -> None:
    bare.setenv(variable, endpoint)
    bare.setenv("AWS_ACCESS_KEY_ID", "k")
    with pytest.raises(ConfigError, match=rf"s3://b/x: {variable}={endpoint}: write an endpoint with its scheme"):
        ObjectFiles("s3://b/x").read("y")


def test_the_section_goes_before_the_environment(
    bare: pytest.MonkeyPatch, s3: S3, proxy: Proxy, bucket_url: str
) -> None:
    bare.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name, value in s3.environment.items():
        if not name.startswith("AWS_ENDPOINT"):
            bare.setenv(name, value)
    files = ObjectFiles(bucket_url, Storage(endpoint=f"http://127.0.0.1:{proxy.s3.port}/"))
    files.put("a", b"1")
    assert proxy.counts == {"PutObject": 1}
    bare.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # object_store lets nothing go before it
    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT_URL_S3=\S+ would go before storage\.endpoint"):
        ObjectFiles(bucket_url, Storage(endpoint=f"http://127.0.0.1:{proxy.s3.port}/")).read("a")


@pytest.mark.parametrize(
    "url",
    [
        "abfs://container@account/folder",
        "abfss://container@account.dfs.core.windows.net/folder",
        "az://container/folder",
        "gs://bucket/folder",
    ],
)
def test_places_of_other_clouds(bare: pytest.MonkeyPatch, url: str) -> None:
    bare.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert make_client(ObjectFiles(url).root, Storage(anonymous=True)).plain is not None
    assert make_client(url, Storage(anonymous=True)).patient is not None


@pytest.mark.parametrize(
    "url", ["s3://user@bucket/x", "abfs://container:secret@account/x", "gs://b/x?token=1", "https://u:p@host/x"]
)
def test_secrets_in_a_url_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="a URL here has no user, query or fragment") as raised:
        ObjectFiles(url)
    assert "secret" not in str(raised.value) and "token" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket/x", "no credentials for Google Cloud Storage: set GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://container/x", "no credentials for Azure: set AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_missing_credentials_are_said_at_once(bare: pytest.MonkeyPatch, url: str, words: str) -> None:
    bare.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    bare.setattr("pipeline.files.credentials._METADATA_HOST", "127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(ConfigError, match=f"{url}: {words}"):
        ObjectFiles(url).read("y")
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    ("url", "storage", "words"),
    [
        ("gs://b/x", Storage(profile="p"), r"storage\.profile is for s3://; leave it out"),
        ("az://b/x", Storage(region="r"), r"storage\.region is for s3://; leave it out"),
        ("https://host/x", Storage(anonymous=True), r"the URL of a web server says all"),
    ],
)
def test_options_that_mean_nothing_are_refused(url: str, storage: Storage, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ObjectFiles(url, storage).read("y")
