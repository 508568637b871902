"""Objects: where credentials are looked for, and what is sent how."""

import os
import time
from pathlib import Path

import pytest
from fixtures_s3 import S3, Faults, Proxy
from fixtures_store import cold_python

from pipeline.files import Files, files_at

pytest_plugins = ["fixtures_store", "fixtures_s3"]


@pytest.fixture
def far(s3: S3, proxy: Proxy, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> Files:
    """A place that is reached through the proxy."""
    from pipeline.files.objects import ObjectFiles

    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.s3.environment["AWS_ENDPOINT_URL"])
    return ObjectFiles(bucket_url)


def test_a_part_of_an_object_is_one_request_and_so_is_a_small_stream(far: Files, proxy: Proxy) -> None:
    far.put("a", b"0123456789")
    proxy.asked.clear()
    assert (far.read("a", 3, 4), far.read("a", 8, 100), far.read_end("a", 3)) == (b"3456", b"89", (b"789", 10))
    with far.open("a") as stream:
        assert stream.read() == b"0123456789"
    with far.open("a", 2, 3) as stream:
        assert (stream.read(2), stream.read()) == (b"23", b"4")
    assert proxy.counts == {"GetObject": 5}


def test_the_files_of_a_folder_are_put_at_the_same_time(far: Files, proxy: Proxy) -> None:
    contents = {f"{number}/c": bytes(number) for number in range(12)}
    far.stats("")  # connects
    proxy.asked.clear()
    proxy.faults.latency_s = 0.3
    began = time.monotonic()
    stats = far.put_folder("part", contents, "staging")
    assert time.monotonic() - began < 4 * proxy.faults.latency_s
    assert proxy.counts == {"PutObject": 12}
    proxy.faults.latency_s = 0
    assert {path: (stat.bytes, stat.etag) for path, stat in far.stats("part").items()} == {
        path: (stat.bytes, stat.etag) for path, stat in stats.items()
    }


def test_a_folder_that_cannot_be_put_leaves_no_request_under_way(far: Files, proxy: Proxy) -> None:
    proxy.faults = Faults(refuse=1.0, answer=(403, "AccessDenied", "Access Denied"), method="PUT", fragment="/3/c")
    with pytest.raises(PermissionError):
        far.put_folder("part", {f"{number}/c": b"" for number in range(12)}, "staging")
    before = len(proxy.asked)
    time.sleep(0.2)
    assert len(proxy.asked) == before


def test_a_profile_of_the_home_folder_is_used(s3: S3, bucket_url: str, tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[work]\naws_access_key_id = me\naws_secret_access_key = hidden\n")
    code = (
        "import os, sys\n"
        "[os.environ.pop(name) for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY')]\n"
        "os.environ.update(HOME=sys.argv[2], AWS_PROFILE='work')\n"
        "from pipeline.files import files_at\n"
        "files = files_at(sys.argv[1]); files.put('a', b'1'); print(files.read('a'))"
    )
    done = cold_python(code, bucket_url, tmp_path)
    assert done.out == "b'1'\n", done.err


@pytest.mark.parametrize("place", ["", "/elsewhere"])
def test_a_forked_process_is_told_why_it_cannot_go_on(s3: S3, bucket_url: str, place: str, tmp_path: Path) -> None:
    """Also of a place that nobody has opened: the network threads are those of all."""
    files_at(bucket_url).put("a", b"1")
    pid = os.fork()
    if not pid:
        try:
            files_at(bucket_url + place).read("a")
        except BaseException as error:
            (tmp_path / "said").write_text(str(error))
        os._exit(0)
    os.waitpid(pid, 0)
    assert "start worker processes with spawn or forkserver" in (tmp_path / "said").read_text()


def test_large_files_are_sent_in_parts_that_are_repeated(
    s3: S3, proxy: Proxy, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.files.objects import ObjectFiles

    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.s3.environment["AWS_ENDPOINT_URL"])
    parts: list[str] = []
    proxy.faults = Faults(
        refuse=0.3, method="PUT", watch=lambda method, path, done: parts.append(path) if "partNumber" in path else None
    )
    data = os.urandom(21 << 20)
    ObjectFiles(bucket_url).put("large", data)
    assert len(set(parts)) >= 3
    assert files_at(bucket_url).read("large") == data
