"""What object stores say, and what helps: in one line."""

import pickle
import re

import pytest
from fixtures_s3 import BUCKET, DENIED, EXPIRED, S3, SLOW_DOWN, Faults, Proxy

from pipeline.errors import ConfigError
from pipeline.files.objects import ObjectFiles
from pipeline.files.refusals import Forbidden, Refusal
from pipeline.storage import Storage

pytest_plugins = ["fixtures_s3"]


def said(files: ObjectFiles, operation: str) -> OSError:
    """The error of an operation that is refused."""
    asks = {
        "LIST": lambda: files.list("x"),
        "LIST below": lambda: files.stats("x"),
        "GET": lambda: files.read("x"),
        "HEAD": lambda: files.stat("x"),
        "PUT": lambda: files.put("x", b"1"),
        "PUT new": lambda: files.put_if_absent("x", b"1"),
        "DELETE": lambda: files.delete("x"),
    }
    with pytest.raises(OSError) as raised:
        asks[operation]()
    text = str(raised.value)
    assert "\n" not in text and "Debug source" not in text and "max_retries" not in text
    return raised.value


@pytest.fixture
def files(proxy: Proxy, s3: S3, bucket_url: str) -> ObjectFiles:
    return ObjectFiles(bucket_url, Storage(endpoint=proxy.s3.environment["AWS_ENDPOINT_URL"], patience_s=0.3))


@pytest.mark.parametrize(
    ("operation", "permission"),
    [
        ("LIST", "s3:ListBucket"),
        ("LIST below", "s3:ListBucket"),
        ("GET", "s3:GetObject"),
        ("PUT", "s3:PutObject"),
        ("PUT new", "s3:PutObject"),
        ("DELETE", "s3:DeleteObject"),
    ],
)
def test_a_denial_names_operation_and_permission(
    files: ObjectFiles, proxy: Proxy, operation: str, permission: str
) -> None:
    proxy.faults = Faults(refuse=1.0, answer=DENIED)
    error = said(files, operation)
    assert isinstance(error, Forbidden) and isinstance(error, PermissionError)
    method = operation.split()[0]
    assert re.search(rf"/x: {method}: 403 AccessDenied: Access Denied; the credentials need {permission}\b", str(error))
    assert len(proxy.asked) == 1  # it is not repeated


def test_a_head_has_no_words_and_is_told_by_its_status(files: ObjectFiles, proxy: Proxy) -> None:
    proxy.faults = Faults(refuse=1.0, answer=DENIED)
    assert "/x: HEAD: 403; the credentials need s3:GetObject (and s3:ListBucket" in str(said(files, "HEAD"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (EXPIRED, "400 ExpiredToken: The provided token has expired.; the credentials have run out"),
        ((403, "InvalidAccessKeyId", "Unknown key."), "403 InvalidAccessKeyId: Unknown key.; the server does not know"),
        ((403, "SignatureDoesNotMatch", "No."), "the secret key is not that of the access key"),
        ((403, "RequestTimeTooSkewed", "No."), "set the clock of this machine"),
        ((301, "PermanentRedirect", "Elsewhere."), "the bucket is in another region"),
        ((400, "AuthorizationHeaderMalformed", "Expecting 'eu-west-1'."), "Expecting 'eu-west-1'.; the bucket is in"),
        ((507, "XMinioStorageFull", "Full."), "507 XMinioStorageFull: Full.; make room there"),
        ((501, "NotImplemented", "No."), "501 NotImplemented: No.; this server cannot do that"),
        (SLOW_DOWN, "503 SlowDown: Please reduce your request rate.; run again, perhaps in fewer processes"),
    ],
)
def test_the_servers_own_words_and_what_helps(
    files: ObjectFiles, proxy: Proxy, answer: tuple[int, str, str], words: str
) -> None:
    proxy.faults = Faults(refuse=1.0, answer=answer)
    for operation in ("PUT", "LIST", "PUT new"):
        assert words in str(said(files, operation))


@pytest.mark.parametrize("operation", ["LIST", "LIST below", "GET", "PUT", "PUT new"])
def test_a_missing_bucket_is_no_missing_object(files: ObjectFiles, proxy: Proxy, operation: str) -> None:
    there = ObjectFiles("s3://no-such-bucket/y", Storage(endpoint=f"http://127.0.0.1:{proxy.s3.port}"))
    error = said(there, operation)
    assert not isinstance(error, FileNotFoundError)
    assert "404 NoSuchBucket: The specified bucket does not exist; make it, or correct its name" in str(error)
    assert len(proxy.asked) == 1
    with pytest.raises(FileNotFoundError):
        files.read("nothing-here")


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        (
            "http://127.0.0.1:9",
            r"no answer from 127\.0\.0\.1:9: Connection refused; see that the server is up and the endpoint right",
        ),
        (
            "https://127.0.0.1:{port}",
            r"no answer from 127\.0\.0\.1:{port}: (no secure connection \(\w+\)|it took too long); see",
        ),
    ],
)
def test_a_server_that_is_not_there(s3: S3, bucket_url: str, endpoint: str, words: str) -> None:
    storage = Storage(endpoint=endpoint.format(port=s3.port), patience_s=0.2)
    assert re.search(words.replace("{port}", str(s3.port)), str(said(ObjectFiles(bucket_url, storage), "PUT")))


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (Faults(drop=1.0), "the connection was closed without one"),
        (Faults(reset=1.0), "Connection reset by peer"),
        (Faults(latency_s=1.0), "it took too long"),
    ],
)
def test_a_connection_that_breaks(files: ObjectFiles, proxy: Proxy, faults: Faults, words: str) -> None:
    proxy.faults = faults
    assert re.search(rf"/x: GET: no answer from 127\.0\.0\.1:\d+: {words}; see that", str(said(files, "GET")))


def test_a_web_server_is_not_listed(s3: S3) -> None:
    web = ObjectFiles(f"http://127.0.0.1:{s3.port}/{BUCKET}", Storage(patience_s=0.2))
    assert "a web server cannot be listed: name the files" in str(said(web, "LIST"))


def test_it_crosses_processes() -> None:
    error = Forbidden(13, "PUT: 403", "s3://b/x")
    error.code, error.is_final = "AccessDenied", True
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.is_final) == ("s3://b/x: PUT: 403", "AccessDenied", True)
    assert isinstance(again, Refusal)


def test_what_only_a_new_url_mends_is_an_error_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT_URL=localhost:9000: write an endpoint with its scheme"):
        ObjectFiles("s3://b/x").read("y")
