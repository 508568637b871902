"""Tars that are damaged, lying, hostile or merely unusual: named, deterministic, a few kilobytes each.

Each case says what must come of it when it is read within LIMITS. Third parties' files are neither needed nor kept:
headers are made here, field by field.
"""

import bz2
import gzip
import itertools
import lzma
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from wicked import WICKED

from pipeline.source.containers.limits import Limits

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMITS = Limits(header_bytes=16 << 10, member_bytes=64 << 10, expansion=50)
"""Small ones, so that small cases reach them."""

BLOCK = 512
END = bytes(2 * BLOCK)
JPEG = b"\xff\xd8\xff\xd9"
"""What stands for an image: nobody decodes it."""


@dataclass(frozen=True)
class Case:
    """A tar and what must come of it."""

    name: str
    data: bytes
    keys: tuple[str, ...] | None = None
    """Those of its samples; None where it must be refused."""
    problem: str = ""
    """Part of the problem of its last sample, or of the refusal."""

    def __str__(self) -> str:
        return self.name


def read(name: str, data: bytes, *keys: str, problem: str = "") -> Case:
    return Case(name, data, keys, problem)


def refused(name: str, data: bytes, problem: str = "") -> Case:
    return Case(name, data, None, problem)


def cases() -> list[Case]:
    """All of them, always the same."""
    return [replace(case, name=f"{family.__name__}: {case.name}") for family in FAMILIES for case in family()]


# --- parts of tars ----------------------------------------------------------------------------------------


def number(value: int, width: int) -> bytes:
    """A field of a header: octal, or base-256 for what does not fit and for negative numbers."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (
        (value % 256**width | 1 << 8 * width - 1).to_bytes(width, "big")
        if value >= 0
        else ((256**width + value).to_bytes(width, "big"))
    )


def header(name: bytes, size: int = 0, kind: bytes = b"0", size_field: bytes = b"") -> bytes:
    """A header block with a good checksum."""
    fields = [
        name[:100].ljust(100, b"\0"),
        number(0o644, 8) + number(0, 8) + number(0, 8),
        size_field or number(size, 12),
        number(0, 12),
        b" " * 8,
        kind,
        bytes(100),
        b"ustar\x0000",
    ]
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: str | bytes, data: bytes = JPEG, kind: bytes = b"0") -> bytes:
    encoded = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    return header(encoded, len(data), kind) + padded(data)


def long_name(name: bytes) -> bytes:
    """What GNU tar puts before a member with a long name."""
    return member(b"././@LongLink", name + b"\0", b"L")


def pax(data: bytes) -> bytes:
    """A pax header of these records."""
    return member(b"././@PaxHeader", data, b"x")


def record(keyword: bytes, value: bytes) -> bytes:
    """One with its own length in front."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def tar(*parts: bytes) -> bytes:
    return b"".join(parts) + END


# --- families ---------------------------------------------------------------------------------------------


def names() -> Iterator[Case]:
    """Members with names that mean harm, or nothing."""
    for what, name in WICKED.items():
        if "/" in name:
            continue
        key = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        yield read(what, tar(member(f"{name}.jpg")), key.partition(".")[0])
        yield read(f"{what} in pax", tar(pax(record(b"path", f"{key}.jpg".encode())), member("x")), key)
        yield read(f"{what} as a long name", tar(long_name(f"{key}.jpg".encode()), member("x")), key)
        twice = tar(member(f"{name}.jpg"), member("b.jpg"), member(f"{name}.cls", b"1"))
        yield refused(f"{what} twice", twice, "comes again after other samples")
        yield read(f"{what}, two images", tar(*2 * [member(f"a.{key}")]), "a", problem="duplicate: two members")
    for name in ("../../x", "/etc/x", "./x", "..//x", "a/../b"):
        yield read(f"place {name}", tar(member(f"{name}.jpg")), name)
    for name in (".", "..", "/", "//", ".jpg", "...", "a/.jpg", "noextension", "", "__meta__", "__x__/a.jpg"):
        yield read(f"no sample {name}", tar(member(name), member("b.jpg")), "b")
    yield read("many dots", tar(long_name(b"a" + b"." * 10_000 + b"jpg"), member("x")), "a")
    yield read("many slashes", tar(long_name(b"/" * 10_000 + b"a.jpg"), member("x")), "/" * 10_000 + "a")


def long_names() -> Iterator[Case]:
    """Names and extended attributes that are longer than anybody's, or say so."""
    most = LIMITS.header_bytes
    yield read("as long as may be", tar(long_name(b"a" * (most - 5) + b".jpg"), member("x")), "a" * (most - 5))
    yield refused("one byte longer", tar(long_name(b"a" * (most - 4) + b".jpg"), member("x")), "max_header_bytes")
    for kind, what in ((b"L", "long name"), (b"x", "pax")):
        for size in (2**20, 2**30, 8**11 - 1, 2**40, 2**62):
            yield refused(f"{what} of {size:,} claimed bytes", header(b"x", size, kind), "max_header_bytes")
        yield refused(f"{what} of fewer bytes than it claims", header(b"x", most, kind) + bytes(BLOCK), "cut off")
        yield refused(f"{what} of negative size", header(b"x", -1, kind), "size -1")
    yield read("many long names for one member", tar(*200 * [long_name(b"b.jpg")], member("x")), "b")
    yield refused("a long name without a member", tar(long_name(b"a.jpg")), "cut off between")
    yield read("a long link", tar(member(b"././@LongLink", bytes(2 * most), b"K"), member("b.jpg")), "b")
    yield read("a global header", tar(member(b"g", record(b"comment", bytes(2 * most)), b"g"), member("b.jpg")), "b")


def pax_records() -> Iterator[Case]:
    """Records that are many, or are not what their lengths say."""
    few = [record(b"k%d" % n, b"") for n in range(1000)]
    yield read("many", tar(pax(b"".join(few)), member("b.jpg")), "b")
    yield read("many of one keyword", tar(pax(record(b"path", b"c.jpg") * 500), member("b.jpg")), "c")
    yield read("padded with zeros", tar(pax(record(b"path", b"c.jpg") + bytes(4000)), member("b.jpg")), "c")
    yield read("zeros alone", tar(pax(bytes(4000)), member("b.jpg")), "b")
    yield read("nothing", tar(pax(b""), member("b.jpg")), "b")
    yield read("no path", tar(pax(record(b"path", b"")), member("b.jpg")), "b")
    for text in (
        b"0 path=a\n", b"1 path=a\n", b"-9 path=a\n", b"+9 path=a\n", b"9 path=ab\n", b"8 path=a\n", b"99 path=a\n",
        b"9" * 19 + b" path=a\n", b"9" * 5000 + b" path=a\n", b"9" * 5000, b" path=a\n", b"path=a\n", b"9 path:a\n",
        b"\n", b"=", b"6 =aaa", b"\xd9\xa9 path=a\n", b"0x9 path=a\n", b"9_9 path=a\n", b"9 " * 2000,
        b"\0\0009 path=a\n",
    ):  # fmt: skip
        yield refused(f"{len(text)} bytes {text[:20]!r}", tar(pax(text), member("b.jpg")), "damaged pax header")
    for size in (b"-1", b"1e9", b"0x10", b"9" * 21, b" 4", b"", b"\xd9\xa4"):
        yield refused(f"size {size!r}", tar(pax(record(b"size", size)), member("b.jpg")), "damaged pax header (size")
    for size in (b"9" * 20, b"%d" % 2**40):
        yield refused(f"size {size.decode()}", tar(pax(record(b"size", size)), member("b.txt")), "cut off")
    yield read("size of the member", tar(pax(record(b"size", b"4")), header(b"b.jpg", 0) + padded(JPEG)), "b")


def members() -> Iterator[Case]:
    """Members of enormous or impossible size, and of every type."""
    most = LIMITS.member_bytes
    yield read("as large as may be", tar(member("a.jpg", bytes(most))), "a")
    larger = tar(member("a.jpg"), member("a.json", bytes(most + 1)))
    yield read("one byte larger", larger, "a", problem=f".json: {most + 1:,} bytes, more than source.max_member_bytes")
    yield read("larger, and others behind it", tar(member("a.jpg", bytes(most + 1)), member("b.jpg")), "a", "b")
    for size in (2**31, 8**11 - 1, 2**40, 2**62):
        yield refused(f"{size:,} claimed bytes", header(b"a.jpg", size) + JPEG, "cut off")
    for size in (-1, -(2**40)):
        yield refused(f"{size} claimed bytes", header(b"a.jpg", size), f"size {size}")
    for field in (b"99999999999\0", b"abcdefghijk\0", b"-0000000001\0", b" " * 12, b"\x81" + bytes(11), b"\xff" * 12):
        ends = tar(header(b"a.jpg", size_field=field))
        fine = field == b" " * 12
        yield read(f"size field {field!r}", ends, "a") if fine else refused(f"size field {field!r}", ends)
    for kind in b"12346":
        yield read(f"type {chr(kind)}", tar(member("a.jpg", b"", bytes([kind])), member("b.jpg")), "b")
    for kind in b"5":
        yield read("a folder that is an image", tar(member("a.jpg", b"", bytes([kind])), member("b.jpg")), "b")
    for kind in (b"A", b"Z", b"\xff", b"V", b"M"):
        yield read(f"type {kind!r}", tar(member("a.jpg", JPEG, kind), member("b.jpg")), "b")
    sparse = bytearray(header(b"a.jpg", 0, b"S"))
    yield refused("a sparse map without end", bytes(sparse[:482] + b"\1" + sparse[483:]) + b"\1" * 4000)
    yield read("links with sizes", tar(*(header(b"a.jpg", 2**40, kind) for kind in (b"1", b"2")), member("b.jpg")), "b")


def ends() -> Iterator[Case]:
    """Tars that end too early, or do not."""
    whole = tar(member("a.jpg"), long_name(b"b" * 200 + b".jpg"), member("x"))
    for cut in range(0, len(whole) - len(END) + 1, 128):
        yield refused(f"cut at {cut}", whole[:cut])
    yield refused("two tars", whole + whole, "more data follows")
    yield read("a great many zeros", whole + bytes(10 * BLOCK), "a", "b" * 200)
    for size in range(1, BLOCK, 100):
        yield refused(f"{size} zeros", bytes(size), "cut off")
    yield read("zeros alone", bytes(BLOCK + 100))
    for what, junk in {"text": b"hello " * 200, "ones": b"\xff" * 2048, "elf": b"\x7fELF" + bytes(600)}.items():
        yield refused(f"no tar, {what}", junk)
    for position in range(0, BLOCK, 8):
        block = bytearray(header(b"a.jpg", 4))
        block[position] ^= 0x80
        yield refused(f"a bit at {position}", bytes(block) + padded(JPEG) + END)


def compressed() -> Iterator[Case]:
    """Streams that are damaged, in one another, or much larger than they look."""
    pack = {"gzip": partial(gzip.compress, mtime=0), "zstd": zstd.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    good = tar(member("a.jpg"))
    bomb = tar(member("a.jpg"), member("a.npy", bytes(1 << 20)))
    for name, packed in pack.items():
        yield read(name, packed(good), "a")
        yield refused(f"{name} of {name}", packed(packed(good)))
        yield refused(f"{name} cut off", packed(good)[:-5], "damaged or cut off")
        yield refused(f"{name} and junk", packed(good) + b"junk", "damaged or cut off")
        yield refused(f"a bomb of {name}", packed(bomb), "source.max_expansion = 50")
        yield refused(f"a bomb of {name} behind the end", packed(good + bytes(1 << 20)), "source.max_expansion = 50")
        yield refused(f"empty streams of {name}", packed(b"") * 50, "empty")


FAMILIES = (names, long_names, pax_records, members, ends, compressed)


def valid_tars() -> list[bytes]:
    """For mutation."""
    samples = list(itertools.chain.from_iterable((member(f"{n}.jpg"), member(f"{n}.cls", b"1")) for n in range(3)))
    return [
        tar(*samples),
        tar(pax(record(b"path", b"long/" * 30 + b"a.jpg") + record(b"mtime", b"1.5")), *samples),
        tar(long_name(b"long/" * 30 + b"a.jpg"), *samples),
        gzip.compress(tar(*samples)),
        zstd.compress(tar(*samples)),
    ]
