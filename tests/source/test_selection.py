"""What is taken of a sample."""

from typing import Any

import pytest

from pipeline.config import SourceConfig
from pipeline.errors import BadLabel, BadSample
from pipeline.records import NO_LABEL
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection


def selection(**options: Any) -> Selection:
    return Selection(SourceConfig(shards="x.tar", **options))


def sample(*extensions: str, **members: bytes | None) -> Sample:
    return Sample(0, "key", {**{extension: extension.encode() for extension in extensions}, **members})


IMAGES = [
    (None, ["jpg"], "jpg"),
    (None, ["cls", "json", "jpeg", "txt"], "jpeg"),
    (None, ["v1.0.jpg"], "v1.0.jpg"),  # the last extension decides
    (None, ["jpg.json", "png"], "png"),
    (None, ["webp", "jpg.txt"], "webp"),
    *((None, [name], name) for name in "jpe jfif gif bmp tif tiff ppm pgm pbm pnm".split()),
    ("png", ["jpg", "png"], "png"),  # one of two, named
    ("png", ["jpg", "mask.png"], "mask.png"),
    ("png", ["mask.png", "png"], "png"),  # the whole extension before the last one
    ("mask.png", ["mask.png", "png"], "mask.png"),
    ("img", ["img", "jpg"], "img"),  # any name will do when it is named
    ("jpg", ["v1.0.jpg"], "v1.0.jpg"),
]


@pytest.mark.parametrize(("image", "extensions", "expected"), IMAGES)
def test_the_image_is_the_member_whose_last_extension_is_an_images(
    image: str | None, extensions: list[str], expected: str
) -> None:
    chosen = selection(image=image)
    assert chosen.wants(expected)
    assert chosen.image(sample(*extensions)) == expected.encode()


NO_IMAGE = [
    (None, ["cls", "txt"], "no image member among .cls, .txt"),
    (None, ["jpg.txt"], "no image member among .jpg.txt"),
    (None, ["npy"], "no image member among .npy"),
    (None, [""], "no image member among ."),
    (None, ["png", "jpg"], "several image members (.jpg, .png); name one in source.image"),
    (None, ["a.jpg", "b.jpg"], "several image members (.a.jpg, .b.jpg)"),
    ("png", ["jpg"], "no .png member among .jpg"),
    ("mask.png", ["png"], "no .mask.png member among .png"),
    ("png", ["a.png", "b.png"], "several image members (.a.png, .b.png); name one in source.image"),
]


@pytest.mark.parametrize(("image", "extensions", "reason"), NO_IMAGE)
def test_no_image_or_several_are_a_reject_of_selection(image: str | None, extensions: list[str], reason: str) -> None:
    with pytest.raises(BadSample) as caught:
        selection(image=image).image(sample(*extensions))
    assert reason in str(caught.value)
    assert caught.value.stage == "select"


def test_an_empty_image_member_is_left_to_the_decoder() -> None:
    assert selection().image(sample(jpg=b"")) == b""


LABELS = [
    (b"7", 7),
    (b"0", 0),
    (b" 7\n", 7),  # as text editors leave it
    (b"\t12\r\n", 12),
    (b"-1", -1),
    (b"-5", -5),
    (b"+3", 3),
    (b"007", 7),
    (b"1.0", 1),
    (b" -2.000\n", -2),
    (b"9223372036854775807", 2**63 - 1),
    (b"-9223372036854775808", -(2**63)),
]


@pytest.mark.parametrize(("text", "label"), LABELS)
def test_a_label_is_an_integer_as_text(text: bytes, label: int) -> None:
    assert selection().label(sample(cls=text)) == label


BAD_LABELS = [
    (b"", "not an integer"),
    (b"cat", "not an integer"),
    (b"7 8", "not an integer"),
    (b"7.5", "not an integer"),
    (b"0x7", "not an integer"),
    (b"\x00\x00\x00\x07", "not an integer"),  # binary
    ("٧".encode(), "not an integer"),  # a seven in Arabic digits
    (b"\xff\xfe7", "not an integer"),
    (b"9223372036854775808", "does not fit 64 bits"),
    (b"-9223372036854775809", "does not fit 64 bits"),
    (b"1" * 5000, "1111"),  # more digits than Python converts
]


@pytest.mark.parametrize(("text", "reason"), BAD_LABELS)
def test_any_other_label_is_a_reject_that_quotes_its_beginning(text: bytes, reason: str) -> None:
    with pytest.raises(BadLabel) as caught:
        selection().label(sample(cls=text))
    assert reason in str(caught.value)
    assert str(caught.value).startswith(".cls holds b'")
    assert len(str(caught.value)) < 250
    assert caught.value.stage == "label"


def test_without_a_label_member_there_is_no_label() -> None:
    assert selection().label(sample("jpg")) == NO_LABEL == -1
    assert selection(label=None).label(sample(cls=b"7")) == NO_LABEL
    assert selection(label="y.txt").label(sample(**{"y.txt": b"4"})) == 4


def test_kept_members_are_bytes_and_an_empty_one_is_not_a_missing_one() -> None:
    chosen = selection(keep=["txt", "json", "jpg", "v1.txt"])
    assert chosen.fields(sample("cls", txt=b"", jpg=b"\xff")) == {
        "txt": b"",
        "json": None,
        "jpg": b"\xff",
        "v1.txt": None,
    }
    assert selection().fields(sample("txt")) == {}


WANTED = [
    ({}, ["jpg", "v1.png", "cls"], ["txt", "json", "", "jpg.txt", "seg"]),
    ({"keep": "json", "label": None}, ["jpg", "json"], ["cls", "txt"]),
    ({"image": "seg.png"}, ["seg.png", "cls"], ["jpg", "png"]),
    ({"image": "png"}, ["seg.png", "png", "cls"], ["jpg"]),
]


@pytest.mark.parametrize(("options", "wanted", "unwanted"), WANTED)
def test_only_what_is_used_is_read(options: dict[str, Any], wanted: list[str], unwanted: list[str]) -> None:
    chosen = selection(**options)
    assert [extension for extension in wanted + unwanted if chosen.wants(extension)] == wanted
