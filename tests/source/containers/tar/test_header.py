"""Header blocks of tar members: the short way must say what `tarfile` says."""

import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples

from pipeline.source.containers.tar.header import Header, parse_header

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def blocks(format: int = tarfile.USTAR_FORMAT, **fields: object) -> bytes:
    info = tarfile.TarInfo("folder/a.jpg")
    for name, value in {"size": 700, "mtime": 1_700_000_000, "uname": "me", "gname": "us", **fields}.items():
        setattr(info, name, value)
    return info.tobuf(format)


def block(format: int = tarfile.USTAR_FORMAT, **fields: object) -> bytes:
    return blocks(format, **fields)[-512:]


# As WebDataset's writer puts one in front of each member, for the fraction of a second.
PAX_HEADER = blocks(tarfile.PAX_FORMAT, mtime=1_700_000_000.25)[:512]


def by_tarfile(data: bytes) -> Header | None:
    try:
        info = tarfile.TarInfo.frombuf(data, "utf-8", "backslashreplace")
    except tarfile.HeaderError:
        return None
    return Header(info.name, info.size, info.type)


def ours(data: bytes) -> Header | None:
    try:
        return parse_header(data)
    except tarfile.HeaderError:
        return None


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_what_writers_write_is_read_without_tarfile(format: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = block(format)
    monkeypatch.setattr(tarfile.TarInfo, "frombuf", None)
    assert parse_header(data) == Header("folder/a.jpg", 700, tarfile.REGTYPE)


def test_a_pax_header_is_read_without_tarfile(monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_tarfile(PAX_HEADER)
    monkeypatch.setattr(tarfile.TarInfo, "frombuf", None)
    assert parse_header(PAX_HEADER) == found == Header("././@PaxHeader", 23, tarfile.XHDTYPE)


ODD = {
    "a folder": {"type": tarfile.DIRTYPE, "name": "folder"},
    "a link": {"type": tarfile.SYMTYPE, "linkname": "b.jpg"},
    "a long path, part of it in the prefix": {"name": f"{'folder/' * 20}a.jpg"},
    "an old plain file": {"type": tarfile.AREGTYPE},
    "a name of 100 bytes": {"name": "x" * 100},
    "a name that is not ASCII": {"name": "日本.jpg"},
    "a size of 8 GB and more in GNU's way": {"size": 2**40},
}


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD)
def test_other_headers_are_what_tarfile_says(fields: dict[str, object]) -> None:
    data = block(tarfile.GNU_FORMAT if "size" in fields else tarfile.USTAR_FORMAT, **fields)
    assert ours(data) == by_tarfile(data) is not None


@settings(max_examples=examples(300))
@given(
    st.integers(0, 511),
    st.binary(min_size=1, max_size=12),
    st.sampled_from([*map(block, FORMATS.values()), PAX_HEADER]),
    st.booleans(),
)
def test_damage_is_what_tarfile_says(at: int, damage: bytes, good: bytes, mend: bool) -> None:
    data = bytearray(good)
    data[at : at + len(damage)] = damage[: 512 - at]
    if mend:  # a header with a good checksum, of odd contents
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data)
    assert ours(bytes(data)) == by_tarfile(bytes(data))
