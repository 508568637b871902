"""The strict reader of tar files: every member once, or an error."""

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples, sampled, tar_bytes
from webdataset.tariterators import tar_file_iterator

from pipeline.errors import SourceError
from pipeline.source.containers.tar.strict import BLOCK_BYTES, Member, StrictTar
from pipeline.source.shards.raw import RawStream

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "folder/" + "long-" * 40 + "name.jpg"
MEMBERS = [
    ("a.jpg", bytes(range(256)) * 3),
    ("b/empty.txt", b""),
    ("b/block.cls", b"x" * BLOCK_BYTES),
    (LONG, b"12345"),
    ("ünï/日本.jpg", b"1" * 513),
]
SHORT = [member for member in MEMBERS if len(member[0]) < 100]


def members_for(format: int) -> list[tuple[str, bytes]]:
    return SHORT if format == tarfile.USTAR_FORMAT else MEMBERS  # ustar has no long names


def read(data: bytes, **options: bool) -> list[tuple[str, bytes | None]]:
    return [(member.name, member.data) for member in StrictTar(io.BytesIO(data), "x.tar", **options)]


def refused(data: bytes, **options: bool) -> str:
    with pytest.raises(SourceError) as caught:
        read(data, **options)
    assert str(caught.value).startswith("x.tar: at byte ")
    return str(caught.value)


def by_tarfile(data: bytes) -> list[tuple[str, bytes | None]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = [(info.name, tar.extractfile(info)) for info in tar if info.isfile()]
        return [(name, file.read()) for name, file in files if file is not None]


def by_webdataset(data: bytes) -> list[tuple[str, bytes | None]]:
    return [(item["fname"], item["data"]) for item in tar_file_iterator(io.BytesIO(data))]


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_it_reads_what_tarfile_and_webdataset_read(format: int) -> None:
    members = members_for(format)
    data = tar_bytes(members, format)
    assert read(data) == members == by_tarfile(data) == by_webdataset(data)


def test_it_reads_what_webdataset_writes(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(5):
            writer.write(
                {"__key__": f"sub/{number:03}", "jpg": bytes(700 * number), "cls": number, "json": {"n": number}}
            )
    data = path.read_bytes()
    assert len(read(data)) == 15
    assert read(data) == by_webdataset(data)


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_it_reads_what_gnu_tar_writes(tmp_path: Path, format: str) -> None:
    gnu_tar(tmp_path)
    for name, content in MEMBERS if format not in ("v7", "ustar") else SHORT:
        file = tmp_path / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    gnu_tar(tmp_path, "-cf", "x.tar", f"--format={format}", "--sort=name", "set")
    data = (tmp_path / "x.tar").read_bytes()
    assert read(data) == by_tarfile(data) == by_webdataset(data)
    assert sorted(name for name, _ in read(data)) == sorted(
        f"set/{name}" for name, _ in (MEMBERS if format not in ("v7", "ustar") else SHORT)
    )


def gnu_tar(folder: Path, *arguments: str) -> None:
    tar = shutil.which("tar")
    if not tar or b"GNU tar" not in subprocess.run([tar, "--version"], capture_output=True).stdout:
        pytest.skip("no GNU tar here")
    subprocess.run([tar, *(arguments or ["--version"])], check=True, capture_output=True, cwd=folder)


@settings(max_examples=examples(60))
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200).filter(
                lambda name: not name.endswith("/")  # that would be a folder
            ),
            st.binary(max_size=1100),
        ),
        max_size=6,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_whatever_is_written_is_read(members: list[tuple[str, bytes]], format: int) -> None:
    assert read(tar_bytes(members, format)) == members


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_the_size_is_that_of_the_whole_file(format: int) -> None:
    data = tar_bytes(members_for(format), format)
    for wanted in (lambda _: True, lambda _: False, lambda name: name.endswith(".jpg")):
        for stream in (io.BytesIO(data), RawStream(io.BytesIO(data))):
            tar = StrictTar(stream, "x.tar", wanted)
            names = [member.name for member in tar]
            assert names == [name for name, _ in members_for(format)]
            assert tar.bytes == len(data)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_member_knows_where_its_contents_lie(format: int) -> None:
    data = tar_bytes(members_for(format), format)
    for member in StrictTar(io.BytesIO(data), "x.tar"):
        assert data[member.contents_at : member.contents_at + member.size] == member.data


def test_only_wanted_members_are_in_memory() -> None:
    tar = StrictTar(io.BytesIO(tar_bytes(MEMBERS[:3])), "x.tar", lambda name: name.endswith(".cls"))
    assert list(tar) == [
        Member("a.jpg", 0, None, start=0, contents_at=512, size=768),
        Member("b/empty.txt", 1536, None, start=1536, contents_at=2048, size=0),
        Member("b/block.cls", 2048, b"x" * 512, start=2048, contents_at=2560, size=512),
    ]


def test_members_larger_than_a_piece_are_whole() -> None:
    members = [("a", bytes(range(256)) * 4096 * 3), ("b", b"1" * ((1 << 20) + 1)), ("c", b"2" * (1 << 20))]
    assert read(tar_bytes(members)) == members
    assert [data for _, data in members] == [data for _, data in read(tar_bytes(members))]


def test_an_archive_without_members_is_a_good_one() -> None:
    data = tar_bytes([])
    assert read(data) == []
    assert read(bytes(BLOCK_BYTES)) == []


def test_folders_are_passed_over(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("folder", "long/" * 40):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("folder/a.jpg"))
    assert read(buffer.getvalue()) == [("folder/a.jpg", b"")]


@pytest.mark.parametrize("step", sampled(17, 1))
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_cut_off_at_any_byte_it_is_an_error_or_every_member_is_there(format: int, step: int) -> None:
    """At every byte among the slow tests; here around every block, and at some bytes between."""
    members = members_for(format)
    data = tar_bytes(members, format)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        starts = [info.offset for info in tar]  # of the long name or pax header, where there is one
        end = tar.getmembers()[-1].offset_data + -(-len(members[-1][1]) // BLOCK_BYTES) * BLOCK_BYTES
    assert not any(data[end:])
    boundaries = {offset: members[:number] for number, offset in enumerate([*starts, end]) if offset}
    sizes = [*range(end + 2 * BLOCK_BYTES), *range(end + 1024, len(data), 997)]
    for size in (size for size in sizes if size % step == 0 or (size + 1) % BLOCK_BYTES < 3):
        cut = data[:size]
        if size >= end + BLOCK_BYTES:  # nothing is missing but padding
            assert read(cut) == read(cut, allow_unterminated=True) == members
            continue
        with pytest.raises(SourceError):
            read(cut)
        if size in boundaries:
            assert read(cut, allow_unterminated=True) == boundaries[size]
        else:
            with pytest.raises(SourceError):
                read(cut, allow_unterminated=True)


def test_a_cut_at_a_member_boundary_names_the_setting_that_accepts_it() -> None:
    data = tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2")])
    assert "at byte 1,024: it ends without the end-of-archive marker" in refused(data[:1024])
    assert "source.allow_unterminated" in refused(data[:1024])
    assert "cut off inside a header" in refused(data[:1100])
    assert "cut off inside a member" in refused(data[:1536])
    assert "the file is empty" in refused(b"")
    assert "allow_unterminated" not in refused(b"", allow_unterminated=True)  # it would not help


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_a_long_name_without_its_member_is_an_error(format: int) -> None:
    data = tar_bytes([(LONG, b"1")], format)
    header_only = data[:1024]  # the header of the name and the name
    assert "long name" in refused(header_only, allow_unterminated=True)
    assert "long name" in refused(header_only + bytes(1024))


def test_an_appended_tar_is_an_error() -> None:
    one, two = tar_bytes([("a.jpg", b"1")]), tar_bytes([("b.jpg", b"2")])
    assert len(by_webdataset(one + two)) == 1  # it reads half and says nothing
    assert "more data follows the end-of-archive marker" in refused(one + two)
    assert "`tar --concatenate`" in refused(one + two)
    assert "more data follows" in refused(one + b"x")
    assert "more data follows" in refused(one + bytes(3 << 20) + b"\1")


def test_the_remedy_for_an_appended_tar_works(tmp_path: Path) -> None:
    (tmp_path / "one.tar").write_bytes(tar_bytes([("a.jpg", b"1")]))
    (tmp_path / "two.tar").write_bytes(tar_bytes([("b.jpg", b"2")]))
    gnu_tar(tmp_path, "--concatenate", "-f", "one.tar", "two.tar")
    assert read((tmp_path / "one.tar").read_bytes()) == [("a.jpg", b"1"), ("b.jpg", b"2")]


def test_a_zeroed_header_does_not_end_the_archive_quietly() -> None:
    data = bytearray(tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")]))
    data[1024:1536] = bytes(512)
    assert len(by_webdataset(bytes(data))) == 1
    assert "more data follows" in refused(bytes(data))


@pytest.mark.parametrize("at", [0, 1024], ids=["first header", "second header"])
def test_any_flipped_bit_of_a_header_is_noticed(at: int) -> None:
    data = tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2")])
    good = read(data)
    unharmful = set()
    for byte in range(BLOCK_BYTES):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at + byte] ^= 1 << bit
            try:
                assert read(bytes(damaged)) == good
                unharmful.add(byte)
            except SourceError as error:
                assert f"at byte {at:,}: damaged header" in str(error)
    assert unharmful <= set(range(148, 156))  # the checksum's own field, where only digits count


def with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:BLOCK_BYTES])
    return bytes(header)


SIZES = [
    (2**62, "cut off inside a member"),
    (2**80, "cut off inside a member"),  # beyond what any machine can count in a register
    (7 * 2**30, "cut off inside a member"),
    (-1, "damaged header (size -1)"),
]


@pytest.mark.parametrize(("size", "reason"), SIZES)
def test_a_size_beyond_the_file_costs_no_memory(size: int, reason: str) -> None:
    data = bytearray(tar_bytes([("a.jpg", b"1")]))
    data[124:136] = (b"\x80" if size > 0 else b"\xff") + (size % 2**88).to_bytes(11, "big")
    assert reason in refused(with_checksum(data))


def test_a_size_in_base_256_is_understood() -> None:
    data = bytearray(tar_bytes([("a.jpg", b"1" * 700)]))
    data[124:136] = b"\x80" + (700).to_bytes(11, "big")
    assert read(with_checksum(data)) == [("a.jpg", b"1" * 700)]


def pax_member(name: str, data: bytes, **records: str) -> bytes:
    """A member behind a pax header, which overrides what the member's own header says."""
    info = tarfile.TarInfo(name)
    info.size = 0 if "size" in records else len(data)
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % BLOCK_BYTES)


def test_pax_records_override_name_and_size() -> None:
    data = pax_member("short.jpg", b"1" * 700, size="700", path="ö/" + "x" * 200 + ".jpg")
    assert data[1024 + 124 : 1024 + 135] == b"0" * 11  # the member's own header says 0 bytes
    data += pax_member("next.jpg", b"2") + bytes(1024)
    expected = [("ö/" + "x" * 200 + ".jpg", b"1" * 700), ("next.jpg", b"2")]  # not carried over to the next
    assert read(data) == expected == by_tarfile(data)


def test_global_pax_headers_and_times_are_passed_over() -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "made by git"}
    ) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.mtime = 1234567890.5
        tar.addfile(info)
    assert b"made by git" in buffer.getvalue()
    assert read(buffer.getvalue()) == [("a.jpg", b"")]


PAX_DAMAGE: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("no length", lambda record: b"x" + record[1:]),
    ("no equals sign", lambda record: record.replace(b"=", b"-")),
    ("no newline", lambda record: record.replace(b"\n", b" ")),
    ("length too small", lambda record: b"03" + record[2:]),
    ("length zero", lambda record: b"00" + record[2:]),
    ("length beyond the header", lambda record: b"99" + record[2:]),
    ("length of many digits", lambda record: b"9" * 5000 + b" path=x\n"),
    ("size in words", lambda record: b"12 size=ten\n"),
    ("size below zero", lambda record: b"11 size=-1\n"),
    ("size in superscript", lambda record: "12 size=²\n".encode()),
    ("size of many digits", lambda record: b"5010 size=" + b"1" * 4999 + b"\n"),
]


@pytest.mark.parametrize("harm", [row[1] for row in PAX_DAMAGE], ids=[row[0] for row in PAX_DAMAGE])
def test_a_damaged_pax_header_is_an_error(harm: Callable[[bytes], bytes]) -> None:
    record = b"14 path=a.jpg\n"
    assert read(pax_file(record)) == [("a.jpg", b"1")]
    assert "damaged pax header" in refused(pax_file(harm(record)))


def pax_file(records: bytes) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    header = info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % BLOCK_BYTES)
    return header + tar_bytes([("b.jpg", b"1")])


KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, b"V", b"?"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_file_has_a_name_and_no_contents(kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
        info = tarfile.TarInfo("b.jpg")
        info.type, info.linkname = kind, "a.jpg"
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("c.jpg"))
    found = [(member.name, member.plain) for member in StrictTar(io.BytesIO(buffer.getvalue()), "x.tar")]
    assert found == [("a.jpg", True), ("b.jpg", False), ("c.jpg", True)]


def test_nothing_follows_a_link_whatever_size_its_header_claims() -> None:
    data = bytearray(tar_bytes([("a.jpg", b""), ("b.jpg", b"1")]))
    data[156:157] = tarfile.LNKTYPE
    data[124:136] = b"%011o\0" % 999
    assert read(with_checksum(data)) == [("a.jpg", None), ("b.jpg", b"1")]


@pytest.mark.parametrize("format", ["gnu", "posix"])
@pytest.mark.parametrize("pieces", [1, 4, 5, 26, 90])  # where the map of a GNU header ends, and goes on
def test_sparse_files_of_gnu_tar_are_passed_over(tmp_path: Path, format: str, pieces: int) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        for piece in range(pieces):
            file.seek((2 * piece + 1) << 16)
            file.write(b"data between two holes")
        file.truncate(pieces << 17)
    (tmp_path / "b.jpg").write_bytes(b"1")
    gnu_tar(tmp_path, "-cSf", "x.tar", f"--format={format}", "a.jpg", "b.jpg")
    data = (tmp_path / "x.tar").read_bytes()
    assert len(data) < (pieces << 16) + (1 << 14), "the file system keeps no holes"
    found = [(member.name, member.data) for member in StrictTar(io.BytesIO(data), "x.tar")]
    assert len(found) == 2
    assert found[1] == ("b.jpg", b"1")


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.tar", data)
    return buffer.getvalue()


NOT_TAR: list[tuple[str, bytes, str]] = [
    ("Parquet", b"PAR1" + bytes(5000) + b"PAR1", "give it a name that ends in .parquet"),
    ("zip", zipped(tar_bytes(MEMBERS[:1])), "it is a zip archive; unpack it, and name the folder"),
    ("JPEG", b"\xff\xd8\xff\xe0" + bytes(300), "it is a JPEG image; name the folder that it lies in"),
    ("large JPEG", b"\xff\xd8\xff\xe0" + b"x" * 5000, "it is a JPEG image; name the folder that it lies in"),
    ("text", b"text " * 1000, "not a tar at all"),
    ("web page", b"<!DOCTYPE html><title>404 Not Found</title>", "cut off inside a header"),
    ("random", hashlib.shake_128(b"y").digest(5120), "not a tar at all"),
]


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in NOT_TAR], ids=[row[0] for row in NOT_TAR])
def test_what_is_no_tar_is_refused(data: bytes, reason: str) -> None:
    assert reason in refused(data)
    assert reason in refused(data, allow_unterminated=True)


def test_names_that_are_not_utf8_are_escaped() -> None:
    data = bytearray(tar_bytes([("abc.jpg", b"1")]))
    data[1] = 0xFF
    ((name, _),) = read(with_checksum(data))
    assert name == "a\\xffc.jpg"
    name.encode()


def test_every_error_ends_with_a_remedy() -> None:
    data = tar_bytes(MEMBERS[:1])
    for damaged in (data[:100], data[:600], b"", data + data, b"x" + data[1:]):
        assert re.search(r"repack|split it", refused(damaged))
