"""The proxy before the S3 server: it counts, and misbehaves as told."""

import http.client
import time
from collections import Counter

import pytest
from fixtures_s3 import BUCKET, DENIED, EXPIRED, SLOW_DOWN, Faults, Proxy, operation_of

pytest_plugins = ["fixtures_s3"]


def status_of(proxy: Proxy, method: str, path: str, body: bytes = b"", key: str = "test") -> tuple[int, bytes]:
    """Status and body of the answer to one request."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.s3.port, timeout=30)
    try:
        connection.request(method, path, body, {"Authorization": f"AWS4-HMAC-SHA256 Credential={key}/20260101/x"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("GET", "/b?list-type=2&prefix=x", "ListObjects"),
        ("POST", "/b?delete", "DeleteObjects"),
        ("HEAD", "/b/", "HeadBucket"),
        ("GET", "/b/x/y", "GetObject"),
        ("PUT", "/b/x/y", "PutObject"),
        ("DELETE", "/b/x", "DeleteObject"),
        ("POST", "/b/x?uploads", "CreateMultipartUpload"),
        ("PUT", "/b/x?partNumber=1&uploadId=2", "UploadPart"),
        ("POST", "/b/x?uploadId=2", "CompleteMultipartUpload"),
        ("DELETE", "/b/x?uploadId=2", "AbortMultipartUpload"),
    ],
)
def test_requests_are_told_apart(method: str, target: str, operation: str) -> None:
    assert operation_of(method, target, {}) == operation


def test_only_creating_is_an_operation_of_its_own() -> None:
    assert operation_of("PUT", "/b/x", {"If-None-Match": "*"}) == "PutObject If-None-Match"


def test_faults_hit_what_they_apply_to_and_requests_are_counted(proxy: Proxy) -> None:
    path = f"/{BUCKET}/proxied/a"
    proxy.faults = Faults(refuse=1.0, answer=DENIED, operation="GetObject", after=1, at_most=1)
    assert status_of(proxy, "PUT", path, b"abcd")[0] == 200
    answers = [status_of(proxy, "GET", path) for _ in range(3)]
    assert [status for status, _ in answers] == [200, 403, 200]
    assert b"\n<Error><Code>AccessDenied</Code>" in answers[1][1]
    assert proxy.counts == Counter(GetObject=3, PutObject=1)
    assert [asked.status for asked in proxy.asked] == [200, 200, 403, 200]


def test_connections_break_in_every_way(proxy: Proxy) -> None:
    path = f"/{BUCKET}/proxied/b"
    for fault, error in (
        ("drop", http.client.RemoteDisconnected),
        ("reset", ConnectionResetError),
        ("forget", http.client.RemoteDisconnected),
    ):
        proxy.faults = Faults(**{fault: 1.0, "at_most": 1})
        with pytest.raises(error):
            status_of(proxy, "PUT", path, b"abcd")
        assert status_of(proxy, "GET", path)[0] == (200 if fault == "forget" else 404)
    proxy.faults = Faults(cut=1.0)
    with pytest.raises(http.client.IncompleteRead):
        status_of(proxy, "GET", path)
    assert proxy.asked[-1].status == 200


def test_an_outage_ends_after_its_time(proxy: Proxy) -> None:
    proxy.faults = Faults(refuse=1.0, answer=SLOW_DOWN, for_s=0.2)
    assert status_of(proxy, "GET", f"/{BUCKET}?list-type=2")[0] == 503
    time.sleep(0.3)
    assert status_of(proxy, "GET", f"/{BUCKET}?list-type=2")[0] == 200


def test_keys_end_one_by_one(proxy: Proxy) -> None:
    proxy.faults = Faults(keys_end={"old": time.monotonic()}, keys_answer=EXPIRED)
    status, body = status_of(proxy, "GET", f"/{BUCKET}?list-type=2", key="old")
    assert status == 400 and b"<Code>ExpiredToken</Code>" in body
    assert status_of(proxy, "GET", f"/{BUCKET}?list-type=2", key="new")[0] == 200


def test_stale_lists_lack_what_is_new(proxy: Proxy) -> None:
    def listed() -> list[bool]:
        _, flat = status_of(proxy, "GET", f"/{BUCKET}?list-type=2&prefix=stale/")
        _, folders = status_of(proxy, "GET", f"/{BUCKET}?list-type=2&prefix=stale/&delimiter=/")
        return [b"stale/x/y" in flat, b"stale/x/" in folders]

    assert status_of(proxy, "PUT", f"/{BUCKET}/stale/x/y", b"abcd")[0] == 200
    assert listed() == [True, True]
    proxy.faults = Faults(stale_s=3600)
    assert listed() == [False, False]
    assert status_of(proxy, "HEAD", f"/{BUCKET}/stale/x/y")[0] == 200
