"""Objects that URLs name: found in few requests, whatever else lies beside them."""

from http.server import BaseHTTPRequestHandler

import pytest
from fixtures_s3 import BUCKET, S3, Faults, Proxy, operation_of

from pipeline.files import object_listing
from pipeline.files import objects as object_files
from pipeline.source.shards import objects
from pipeline.source.shards.patterns import expand

pytest_plugins = ["fixtures_s3"]

PAGE, STRANGERS = 105, 110
"""Objects in an answer, instead of the protocol's thousand; and more than that."""


@pytest.fixture(scope="module")
def crowded(s3_server: S3) -> str:
    """A folder with some tars among many strangers; its URL."""
    for number in range(STRANGERS):
        s3_server.request("PUT", f"/{BUCKET}/crowd/other-{number:05d}.tar")
    for path in ("t-0.tar", "t-1.tar", "t-2/x.tar", "deep/a/x.tar", "deep/b/x.tar", "deep/b/y.tar", "deep/c/d/x.tar"):
        s3_server.request("PUT", f"/{BUCKET}/crowd/{path}")
    return f"s3://{BUCKET}/crowd"


@pytest.fixture
def watched(s3: S3, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The proxy, which every request of this process passes."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.s3.environment["AWS_ENDPOINT_URL"])
    monkeypatch.setattr(objects, "files_at", object_files.ObjectFiles)  # one for every bucket is kept
    forward = proxy._forward

    def in_short_pages(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if operation_of(request.command, request.path, dict(request.headers)) == "ListObjects":
            request.path += f"&max-keys={PAGE}"
        return forward(request, body)

    monkeypatch.setattr(proxy, "_forward", in_short_pages)
    monkeypatch.setattr(object_listing, "_PAGE", PAGE)
    return proxy


FOUND = [
    ("t-{0..1}.tar", ["t-0.tar", "t-1.tar"], 2),
    ("t-*.tar", ["t-0.tar", "t-1.tar"], 1),
    ("t-?.tar", ["t-0.tar", "t-1.tar"], 1),
    ("other-0000[1-3].tar", [f"other-0000{number}.tar" for number in (1, 2, 3)], 1),
    ("deep/*/x.tar", ["deep/a/x.tar", "deep/b/x.tar"], 4),
    ("deep/[ab]/*.tar", ["deep/a/x.tar", "deep/b/x.tar", "deep/b/y.tar"], 3),
    ("deep/**/x.tar", ["deep/a/x.tar", "deep/b/x.tar", "deep/c/d/x.tar"], 3),
    ("other-00{000..099}.tar", [f"other-00{number:03d}.tar" for number in range(100)], 1),
]


@pytest.mark.parametrize(("pattern", "expected", "requests"), FOUND)
def test_what_is_named_is_found_in_few_requests(
    pattern: str, expected: list[str], requests: int, crowded: str, watched: Proxy
) -> None:
    found = expand(f"{crowded}/{pattern}")
    assert [named.file for named in found] == [f"{crowded}/{path}" for path in expected]
    assert all(named.stat is not None for named in found)
    assert len(watched.asked) <= requests, watched.counts


def test_a_list_that_lags_behind_makes_nothing_missing(s3_server: S3, watched: Proxy) -> None:
    url = f"s3://{BUCKET}/news"
    for number in range(70):
        s3_server.request("PUT", f"/{BUCKET}/news/n-{number:02d}.tar", b"x")
    watched.faults = Faults(stale_s=3600)
    watched._written.update({f"news/n-{number:02d}.tar": float("inf") for number in range(70)})
    for last in (5, 69):  # asked for one by one, and listed
        assert all(named.stat for named in expand(f"{url}/n-{{00..{last:02d}}}.tar"))
    found = expand(f"{url}/n-{{00..99}}.tar")
    assert [named.file[-6:-4] for named in found if named.stat is None] == [str(number) for number in range(70, 100)]
