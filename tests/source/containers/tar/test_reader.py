"""Members grouped into samples by WebDataset's rules, and what those rules do not allow."""

import gzip
import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import webdataset
from support import Members, shared_data, tar_bytes, write_tar
from webdataset.tariterators import group_by_keys, tar_file_iterator

from pipeline.config import SourceConfig
from pipeline.errors import BadSample, SourceError
from pipeline.files import LocalFiles
from pipeline.source.containers.tar.reader import TarReader
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path)


def reader(files: LocalFiles, members: Members, **options: bool) -> TarReader:
    files.put("x.tar", tar_bytes(members))
    return TarReader(files, "x.tar", **options)


def refused(files: LocalFiles, members: Members) -> str:
    with pytest.raises(SourceError) as caught:
        list(reader(files, members))
    assert str(caught.value).startswith(f"{files.root}/x.tar: at byte ")
    return str(caught.value)


TWO = [
    ("a.JPG", b"1"),
    ("a.cls", b"7"),
    ("b/c.v1.jpg", b"2"),
    ("b/c.seg.PNG", b"3"),
]


def test_samples_hold_their_members_in_order(files: LocalFiles) -> None:
    samples = reader(files, TWO)
    assert list(samples) == [
        Sample(0, "a", {"jpg": b"1", "cls": b"7"}),
        Sample(1, "b/c", {"v1.jpg": b"2", "seg.png": b"3"}),
    ]
    data = files.read("x.tar")
    assert samples.digest == hashlib.sha256(data).hexdigest()
    assert samples.bytes == len(data)
    (source,) = samples.sources()
    assert (source.path, source.bytes, source.sha256) == ("x.tar", len(data), samples.digest)
    assert source.head == hashlib.sha256(data[:65536]).hexdigest()


def test_webdataset_finds_the_same_samples(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "x.tar")) as writer:
        for number in range(7):
            writer.write({"__key__": f"n{number % 3}/{number:04}", "jpg": bytes([number] * 600), "cls": number})
    assert_equal_to_webdataset(tmp_path / "x.tar", 7)


def test_webdataset_finds_the_same_samples_in_real_shards() -> None:
    assert_equal_to_webdataset(shared_data("photos/photos-0000.tar"), 100)


def assert_equal_to_webdataset(tar: Path, count: int) -> None:
    with tar.open("rb") as stream:
        items = ({**item, "__url__": ""} for item in tar_file_iterator(stream))
        theirs = [{**sample} for sample in group_by_keys(items)]
    ours = [
        {"__key__": sample.key, "__url__": "", **sample.members}
        for sample in TarReader(LocalFiles(tar.parent), tar.name)
    ]
    assert len(ours) == count
    assert ours == theirs


def test_unwanted_members_are_known_but_not_read(files: LocalFiles) -> None:
    files.put("x.tar", tar_bytes(TWO))
    samples = list(TarReader(files, "x.tar", lambda extension: extension == "cls"))
    assert [sample.members for sample in samples] == [
        {"jpg": None, "cls": b"7"},
        {"v1.jpg": None, "seg.png": None},
    ]


def test_members_of_no_sample_are_listed_and_part_no_sample(files: LocalFiles) -> None:
    samples = reader(
        files, [("README", b""), ("a.jpg", b""), (".DS_Store", b""), ("a.cls", b"1"), ("__m__/x.jpg", b"")]
    )
    assert [(sample.key, list(sample.members)) for sample in samples] == [("a", ["jpg", "cls"])]
    assert samples.ignored == ["README", ".DS_Store", "__m__/x.jpg"]


def test_a_tar_without_samples_has_none(files: LocalFiles) -> None:
    assert list(reader(files, [])) == []
    assert list(reader(files, [("README", b"")])) == []


REPEATS = [
    [("a.jpg", b""), ("b.jpg", b""), ("a.cls", b"")],  # members apart
    [("a.jpg", b""), ("b.jpg", b""), ("a.jpg", b"")],  # a repeated key
]


@pytest.mark.parametrize("members", REPEATS)
def test_a_key_that_comes_again_is_an_error(files: LocalFiles, members: Members) -> None:
    message = refused(files, members)
    assert "at byte 1,024: key 'a' comes again" in message
    assert "source.regroup=true" in message


def test_the_command_of_the_message_repairs_members_that_stand_apart(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    folder = tmp_path / "my set"
    write_tar(folder / "it's.tar", [("b.jpg", b"1"), ("s/a.txt", b"2"), ("b.txt", b"3"), ("s/a.jpg", b"4")])
    with pytest.raises(SourceError) as caught:
        list(TarReader(LocalFiles(folder), "it's.tar"))
    subprocess.run(str(caught.value).partition("repack it: ")[2], shell=True, check=True, cwd=tmp_path)
    samples = TarReader(files, "sorted-it's.tar")
    assert {sample.key: sample.members for sample in samples} == {
        "b": {"jpg": b"1", "txt": b"3"},
        "s/a": {"jpg": b"4", "txt": b"2"},
    }


def test_of_a_compressed_tar_the_message_asks_for_no_regrouping_as_it_is(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("a.jpg", b""), ("b.jpg", b""), ("a.cls", b"")])
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress((tmp_path / "x.tar").read_bytes()))
    with pytest.raises(SourceError) as caught:
        list(TarReader(LocalFiles(tmp_path), "x.tar.gz"))
    assert "decompress it, for source.regroup to read it as it is then, or repack it: " in str(caught.value)
    assert "source.regroup=true" not in str(caught.value)  # what inspect tries, and init proposes
    assert " -cf sorted-x.tar -C " in str(caught.value)


TWINS = [
    [("a.jpg", b"1"), ("a.jpg", b"2"), ("b.jpg", b"3")],
    [("a.jpg", b"1"), ("a.JPG", b"2"), ("b.jpg", b"3")],  # one name in lower case
    [("a.jpg", b"1"), ("a.cls", b"0"), ("a.cls", b"1"), ("a.cls", b"1"), ("b.jpg", b"3")],
]


@pytest.mark.parametrize("members", TWINS)
def test_two_members_of_one_name_spoil_their_sample_alone(files: LocalFiles, members: Members) -> None:
    twins, after = reader(files, members)
    for taken in (Selection(SourceConfig(shards=())).label, Selection(SourceConfig(shards=())).image):
        with pytest.raises(BadSample, match=r"duplicate: two members \.(jpg|cls)"):
            taken(twins)
    assert after == Sample(1, "b", {"jpg": b"3"})


def test_links_part_no_sample_and_are_listed(files: LocalFiles, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in [("a.jpg", b"0"), ("l.jpg", tarfile.SYMTYPE), ("a.cls", b"0"), ("m.jpg", tarfile.LNKTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.jpg" * (kind != b"0")
            tar.addfile(info)
    samples = TarReader(files, "x.tar")
    assert list(samples) == [Sample(0, "a", {"jpg": b"", "cls": b""})]
    assert samples.ignored == ["l.jpg", "m.jpg"]


def test_the_same_file_name_in_two_folders_is_two_samples(files: LocalFiles) -> None:
    assert [sample.key for sample in reader(files, {"x/a.jpg": b"", "y/a.jpg": b"", "a.jpg": b""})] == [
        "x/a",
        "y/a",
        "a",
    ]


def test_samples_before_an_error_are_there_and_the_digest_is_not(files: LocalFiles) -> None:
    samples = reader(files, [("a.jpg", b""), ("b.jpg", b""), ("c.jpg", b""), ("a.cls", b"")])
    seen: list[str] = []
    with pytest.raises(SourceError):
        seen.extend(sample.key for sample in samples)
    assert seen == ["a", "b", "c"]
    assert samples.digest == ""


def test_a_cut_tar_does_not_yield_its_last_half_sample(files: LocalFiles) -> None:
    data = tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2"), ("b.cls", b"3")])
    files.put("x.tar", data[:2500])
    iterator = iter(TarReader(files, "x.tar"))
    assert next(iterator).key == "a"
    with pytest.raises(SourceError, match="cut off"):
        next(iterator)


def test_an_unterminated_tar_is_accepted_where_that_was_asked_for(files: LocalFiles) -> None:
    data = tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2")])[:2048]
    files.put("x.tar", data)
    with pytest.raises(SourceError, match=r"source\.allow_unterminated"):
        list(TarReader(files, "x.tar"))
    samples = TarReader(files, "x.tar", allow_unterminated=True)
    assert [sample.key for sample in samples] == ["a", "b"]
    assert (samples.bytes, samples.digest) == (2048, hashlib.sha256(data).hexdigest())


def test_a_file_that_is_missing_or_is_none_is_named(files: LocalFiles, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent\.tar: the source shard is gone; restore it"):
        next(iter(TarReader(files, "absent.tar")))
    with pytest.raises(SourceError, match=r"cannot be read: .* run again when it can"):
        next(iter(TarReader(LocalFiles(tmp_path.parent), tmp_path.name)))  # a folder


@pytest.mark.parametrize("replaced", [False, True])
def test_what_was_opened_is_read_to_its_end_whatever_takes_its_name(
    files: LocalFiles, tmp_path: Path, replaced: bool
) -> None:
    write_tar(tmp_path / "x.tar", {f"{number}.jpg": bytes(1 << 20) for number in range(4)})
    iterator = iter(TarReader(files, "x.tar"))
    samples = [next(iterator)]
    files.delete("x.tar")
    if replaced:
        write_tar(tmp_path / "x.tar", {f"{number}.jpg": b"\1" * (1 << 20) for number in range(9)})
    samples += iterator
    assert [set(sample.members["jpg"] or b"") for sample in samples] == [{0}] * 4


def test_a_file_that_is_cut_while_it_is_read_is_named(files: LocalFiles, tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {f"{number}.jpg": bytes(1 << 20) for number in range(8)})
    iterator = iter(TarReader(files, "x.tar"))
    next(iterator)
    os.truncate(tmp_path / "x.tar", 3 << 20)
    with pytest.raises(SourceError, match="cut off inside a member"):
        list(iterator)


def test_bytes_grow_while_reading(files: LocalFiles) -> None:
    samples = reader(files, {f"{number}.jpg": bytes(2000) for number in range(5)})
    seen = [samples.bytes for _ in samples]
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] < samples.bytes


def test_a_wanted_text_file_is_no_secret(files: LocalFiles) -> None:
    """Contents stay out of messages and logs."""
    assert "private" not in repr(next(iter(reader(files, {"a.txt": b"private"}))))
