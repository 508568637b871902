"""The header that lets a JPEG pass by Pillow: whatever it says, Pillow would have said."""

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import encoded, examples, picture, shared_data

from pipeline.files import LocalFiles
from pipeline.source.containers.tar.reader import TarReader
from pipeline.source.images.jpeg_header import JpegHeader, jpeg_header

RGB = Image.fromarray(picture(40, 56))
PLAIN = encoded(RGB, "JPEG")


def segment(code: int, data: bytes) -> bytes:
    return bytes([0xFF, code]) + (len(data) + 2).to_bytes(2, "big") + data


def behind_start(data: bytes, inserted: bytes) -> bytes:
    return data[:2] + inserted + data[2:]


COMMON: list[dict[str, Any]] = [
    {},
    {"quality": 30},
    {"subsampling": 0},
    {"optimize": True},
    {"restart_marker_blocks": 2},
    {"dpi": (300, 300)},
    {"comment": b"made by hand"},
    {"icc_profile": bytes(90_000)},
]


@pytest.mark.parametrize("options", COMMON, ids=lambda options: str(options)[:40])
def test_common_files_need_no_closer_look(options: dict[str, Any]) -> None:
    assert jpeg_header(encoded(RGB, "JPEG", **options)) == JpegHeader(56, 40, one_scan=True, rgb=False)
    assert jpeg_header(encoded(RGB.convert("L"), "JPEG", **options)) == JpegHeader(56, 40, one_scan=True, rgb=False)


def test_several_scans_and_rgb_are_told() -> None:
    assert jpeg_header(encoded(RGB, "JPEG", progressive=True)) == JpegHeader(56, 40, one_scan=False, rgb=False)
    assert jpeg_header(encoded(RGB, "JPEG", keep_rgb=True)) == JpegHeader(56, 40, one_scan=True, rgb=True)
    adobe = behind_start(PLAIN, segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"))
    assert jpeg_header(adobe) == JpegHeader(56, 40, one_scan=True, rgb=True)


RESOURCE = b"8BIM\4\4\0\0\0\0\0\4\0\1\0\1"


@pytest.mark.parametrize("end", range(len(RESOURCE) + 1))
def test_resources_of_photoshop_are_looked_at_where_pillow_fails_on_them(end: int) -> None:
    data = behind_start(PLAIN, segment(0xED, b"Photoshop 3.0\0" + RESOURCE + RESOURCE[:end]))
    try:
        Image.open(io.BytesIO(data)).close()
        opens = True
    except Image.UnidentifiedImageError:
        opens = False
    assert (jpeg_header(data) is not None) == opens == (end != 6)


def multi_picture() -> bytes:
    buffer = io.BytesIO()
    RGB.save(buffer, "MPO", save_all=True, append_images=[RGB])
    return buffer.getvalue()


FRAME = PLAIN.index(b"\xff\xc0")
TABLE = PLAIN.index(b"\xff\xdb")
DOUBTFUL = {
    "nothing": b"",
    "another format": encoded(RGB, "PNG"),
    "a start alone": PLAIN[:2],
    "a header cut off": PLAIN[: FRAME + 6],
    "no scan": PLAIN[: PLAIN.index(b"\xff\xda")],
    "four inks": encoded(RGB.convert("CMYK"), "JPEG"),
    "several pictures": multi_picture(),
    "EXIF": encoded(RGB, "JPEG", exif=Image.Exif().tobytes()),
    "a cut resource of Photoshop": behind_start(PLAIN, segment(0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed")),
    "a profile without its number": behind_start(PLAIN, segment(0xE2, b"ICC_PROFILE\0")),
    "a short Adobe segment": behind_start(PLAIN, segment(0xEE, b"Adobe\0")),
    "a short JFIF segment": behind_start(PLAIN, segment(0xE0, b"JFIF\0")),
    "fill bytes": behind_start(PLAIN, b"\xff" * 3),
    "junk between segments": behind_start(PLAIN, b"junk"),
    "a segment of length 1": behind_start(PLAIN, b"\xff\xe5\0\1"),
    "a segment beyond the file": PLAIN[:FRAME] + b"\xff\xe5\xff\xff" + PLAIN[FRAME:][:100],
    "another process": PLAIN[: FRAME + 1] + b"\xc9" + PLAIN[FRAME + 2 :],
    "12 bits": PLAIN[: FRAME + 4] + b"\x0c" + PLAIN[FRAME + 5 :],
    "no rows": PLAIN[: FRAME + 5] + bytes(2) + PLAIN[FRAME + 7 :],
    "two components": PLAIN[: FRAME + 9] + b"\2" + PLAIN[FRAME + 10 :],
    "two frames": PLAIN[:FRAME] + PLAIN[FRAME : FRAME + 19] + PLAIN[FRAME:],
    "a table of 16 bits": PLAIN[: TABLE + 4] + b"\x10" + PLAIN[TABLE + 5 :],
    "an empty table": behind_start(PLAIN, segment(0xDB, b"")),
}


@pytest.mark.parametrize("data", DOUBTFUL.values(), ids=DOUBTFUL)
def test_whatever_is_unusual_needs_a_closer_look(data: bytes) -> None:
    assert jpeg_header(PLAIN) is not None
    assert jpeg_header(data) is None


FILES = [
    PLAIN,
    behind_start(PLAIN, segment(0xED, b"Photoshop 3.0\0" + RESOURCE * 3)),
    *(encoded(RGB, "JPEG", **options) for options in COMMON[1:7]),
    encoded(RGB.convert("L"), "JPEG"),
]
HEADER_BYTES = 620


@settings(max_examples=examples(1000))
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(2, HEADER_BYTES), st.integers(0, 3), st.binary(max_size=4)), max_size=4),
)
def test_what_it_vouches_for_pillow_opens(data: bytes, damage: list[tuple[int, int, bytes]]) -> None:
    for at, removed, inserted in damage:
        data = data[:at] + inserted + data[at + removed :]
    header = jpeg_header(data)
    if header is not None:
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == ("JPEG", (header.width, header.height))
            assert image.mode in ("RGB", "L")


def test_most_photographs_need_no_closer_look() -> None:
    shard = shared_data("photos/photos-0000.tar")
    files = [sample.members["jpg"] or b"" for sample in TarReader(LocalFiles(shard.parent), shard.name)]
    assert sum(jpeg_header(data) is not None for data in files) > 0.9 * len(files)
