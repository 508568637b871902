"""Credentials that end in the middle of a job, and newer ones in their place."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fixtures_s3 import EXPIRED, S3, Faults, Proxy

from pipeline.errors import ConfigError
from pipeline.files import credentials as module
from pipeline.files.credentials import AwsCredentials
from pipeline.files.objects import ObjectFiles
from pipeline.storage import Storage

pytest_plugins = ["fixtures_s3"]

INVALID = (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")


class Home:
    """`~/.aws`, in which a test gives out keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.credentials = folder / "credentials"
        self.config = folder / "config"
        self.asked = folder / "asked"
        """A line for each time that the program of `program` ran."""

    def file(self, key: str, profile: str = "default") -> None:
        """A profile with this key, as tools for logging in write it."""
        self.credentials.write_text(
            f"[{profile}]\naws_access_key_id = {key}\naws_secret_access_key = s\naws_session_token = {key}\n"
        )

    def program(self, key: str, life_s: float = 3600) -> None:
        """A program that gives out this key, until it is told to give out another."""
        answer = self.folder / "answer.json"
        expiration = datetime.now(UTC) + timedelta(seconds=life_s)
        told = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": key}
        answer.write_text(json.dumps({**told, "Expiration": expiration.isoformat()}))
        script = self.folder / "give.sh"
        script.write_text(f"#!/bin/sh\necho x >> {self.asked}\ncat {answer}\n")
        script.chmod(0o755)
        self.config.write_text(f"[default]\ncredential_process = {script}\n")

    @property
    def times_asked(self) -> int:
        return len(self.asked.read_text().splitlines()) if self.asked.exists() else 0


@pytest.fixture
def home(tmp_path: Path, s3: S3, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty one, and nothing in the environment but the address of the proxy."""
    home = Home(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home.credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home.config))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.s3.environment["AWS_ENDPOINT_URL"])
    return home


@pytest.mark.parametrize("answer", [EXPIRED, INVALID, (403, "", "")], ids=["expired", "unknown", "wordless"])
@pytest.mark.parametrize("source", ["file", "program"])
def test_newer_keys_are_used_once_the_old_ones_are_refused(
    home: Home, proxy: Proxy, bucket_url: str, source: str, answer: tuple[int, str, str]
) -> None:
    give: Callable[[str], None] = getattr(home, source)
    give("one")
    files = ObjectFiles(bucket_url, Storage(patience_s=20))
    files.put("a", b"1")
    proxy.faults = Faults(keys_end={"one": time.monotonic()}, keys_answer=answer)
    give("two")
    before = len(proxy.asked)
    for operation in (lambda: files.put("b", b"2"), lambda: files.read("a"), lambda: files.stats("")):
        operation()
    assert len(proxy.asked) - before == 4  # one of them twice
    assert files.put_if_absent("c", b"3") and files.stat("c").bytes == 1


def test_many_threads_renew_once(home: Home, proxy: Proxy, bucket_url: str) -> None:
    home.program("one")
    files = ObjectFiles(bucket_url, Storage(patience_s=20))
    files.put("a", b"1")
    proxy.faults = Faults(keys_end={"one": time.monotonic()}, latency_s=0.05)
    home.program("two")
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: files.read("a"), range(8))) == {b"1"}
    assert home.times_asked == 2


@pytest.mark.parametrize("operation", ["read", "stats", "delete_folder"])
def test_without_newer_keys_it_is_over_at_once(home: Home, proxy: Proxy, bucket_url: str, operation: str) -> None:
    home.file("one")
    files = ObjectFiles(bucket_url, Storage(patience_s=60))
    files.put("a", b"1")
    proxy.faults = Faults(keys_end={"one": time.monotonic()})
    before, started = len(proxy.asked), time.monotonic()
    with pytest.raises(
        OSError, match=r"400 ExpiredToken: .*; the credentials have run out, and there are no newer ones"
    ):
        getattr(files, operation)("a")
    assert (len(proxy.asked) - before, time.monotonic() - started < 5) == (1, True)


def test_keys_of_the_environment_are_read_again(
    home: Home, proxy: Proxy, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "one")
    files = ObjectFiles(bucket_url, Storage(patience_s=20))
    files.put("a", b"1")
    proxy.faults = Faults(keys_end={"one": time.monotonic()})
    with pytest.raises(OSError, match="ExpiredToken"):
        files.read("a")
    assert len(proxy.asked) == 2
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "two")
    assert files.read("a") == b"1"


def test_keys_are_renewed_before_they_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now)
    home.program("one", life_s=3600)
    keys = AwsCredentials(None, "s3://b")
    home.program("two", life_s=7200)
    now += 3200
    assert keys()["access_key_id"] == "one"
    now += 120  # less than five minutes are left
    assert keys()["access_key_id"] == "two"
    assert keys()["expires_at"] - datetime.now(UTC) > timedelta(minutes=100)
    assert home.times_asked == 2


def test_keys_of_a_short_life_do_not_start_a_program_for_every_request(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now)
    home.program("one", life_s=240)
    keys = AwsCredentials(None, "s3://b")
    for _ in range(200):
        now += 1
        keys()
    assert home.times_asked <= 6  # the same key is given out again and again, until it ends


def test_a_renewal_that_fails_is_tried_again_while_the_keys_are_good(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now)
    home.program("one", life_s=3600)
    keys = AwsCredentials(None, "s3://b")
    home.config.write_text("[default]\ncredential_process = false\n")
    now += 3500
    assert keys()["access_key_id"] == "one"
    now += 101
    with pytest.raises(ConfigError, match=r"s3://b: no credentials: .*log in again"):
        keys()


def test_a_profile_brings_its_endpoint_and_region(
    home: Home, proxy: Proxy, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of nobody")
    home.file("ours", profile="work")
    home.config.write_text(
        f"[profile work]\nregion = eu-west-3\nservices = mine\n[services mine]\ns3 =\n"
        f"  endpoint_url = http://127.0.0.1:{proxy.s3.port}\n"
    )
    monkeypatch.delenv("AWS_REGION")
    proxy.faults = Faults(keys_end={"of nobody": 0.0})
    files = ObjectFiles(bucket_url, Storage(profile="work", patience_s=5))
    files.put("a", b"1")
    assert [asked.operation for asked in proxy.asked] == ["PutObject"]
    with pytest.raises(ConfigError, match=r"s3://b: The config profile .nobody. could not be found"):
        ObjectFiles("s3://b", Storage(profile="nobody")).read("a")


def test_without_any_the_message_says_where_they_are_looked_for(home: Home, bucket_url: str) -> None:
    with pytest.raises(ConfigError, match=r"no credentials in the environment \(AWS_ACCESS_KEY_ID, \.\.\.\)"):
        ObjectFiles(bucket_url).read("a")
    started = time.monotonic()
    with pytest.raises(FileNotFoundError):
        ObjectFiles(bucket_url, Storage(anonymous=True, patience_s=5)).read("a")
    assert time.monotonic() - started < 5


def test_a_user_without_a_home_has_no_credentials_of_google(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container in which nobody has the number of its user."""
    for name in (*module._GOOGLE_NATIVE, "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-at-all").expanduser())
    with pytest.raises(ConfigError, match="no credentials for Google Cloud Storage"):
        module.refuse_no_google("gs://bucket/tokens")
