"""Scaled decoding: the same picture from fewer pixels, and the same rejects."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import encoded, picture

from pipeline.config import ImageConfig
from pipeline.errors import BadImage, ConfigError
from pipeline.source.images import turbojpeg
from pipeline.source.images.decoding import Picture
from pipeline.source.images.transform import ImageTransform

LIMIT = 10**8
RGB = Image.fromarray(picture(400, 600))
needs_simplejpeg = pytest.mark.skipif(turbojpeg.simplejpeg is None, reason="simplejpeg is not installed")


def transform(decoder: Any, **options: Any) -> ImageTransform:
    return ImageTransform(ImageConfig(decoder=decoder, **{"size": 64, **options}))


def outcome(apply: ImageTransform, data: bytes) -> torch.Tensor | str:
    (found,) = apply.many([data], [""])
    return str(found) if isinstance(found, BadImage) else found[0].img_3HW


def distance(data: bytes, **options: Any) -> float:
    """Mean difference from the pixels of torchvision."""
    one, other = transform("turbojpeg", **options)(data), transform("torchvision", **options)(data)
    assert one.shape == other.shape
    return float((one.float() - other.float()).abs().mean())


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


# Height and width of an image, what it is resized to, and how much smaller it may be decoded.
SCALES = [
    ((400, 600), (64, 96), 4),
    ((400, 600), (50, 75), 8),
    ((400, 600), (51, 76), 4),
    ((400, 600), (200, 300), 2),
    ((400, 600), (201, 302), 1),
    ((400, 600), (800, 1200), 1),
    ((400, 600), (64, 600), 1),  # the other side would not be covered
    ((401, 601), (201, 301), 2),  # 200.5 rows become 201
]


@pytest.mark.parametrize(("have", "want", "divisor"), SCALES)
@needs_simplejpeg
def test_the_smallest_scale_that_covers_both_sides(have: tuple[int, int], want: tuple[int, int], divisor: int) -> None:
    decode = turbojpeg.TurboJpegDecoder(LIMIT, lambda height, width: want)
    (found,) = decode([encoded(Image.fromarray(picture(*have)), "JPEG")])
    assert isinstance(found, Picture)
    assert (found.height, found.width) == have
    assert tuple(found.img_3HW.shape) == (3, -(-have[0] // divisor), -(-have[1] // divisor))


FILES: dict[str, bytes] = {
    "colour": encoded(RGB, "JPEG", quality=95),
    "grey": encoded(RGB.convert("L"), "JPEG", quality=95),
    "progressive": encoded(RGB, "JPEG", quality=95, progressive=True),
    "no subsampling": encoded(RGB, "JPEG", quality=95, subsampling=0),
    "stored as RGB": encoded(RGB, "JPEG", quality=95, keep_rgb=True),
    **{f"turned {number}": encoded(RGB, "JPEG", quality=95, exif=exif(number)) for number in range(1, 9)},
}


@pytest.mark.parametrize("resize", ["shortest", "stretch"])
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@needs_simplejpeg
def test_it_is_the_picture_that_torchvision_decodes(data: bytes, resize: str) -> None:
    assert distance(data, size=(64, 48), resize=resize) < 1.5


NOT_SCALED: dict[str, bytes] = {
    "a small JPEG": encoded(RGB.resize((100, 80)), "JPEG"),
    "four inks": encoded(RGB.convert("CMYK"), "JPEG"),
    "PNG": encoded(RGB, "PNG"),
    "16-bit grey": encoded(Image.fromarray(np.full((400, 600), 999, np.uint16)), "PNG"),
    "WebP": encoded(RGB, "WEBP"),
}


@pytest.mark.parametrize("data", NOT_SCALED.values(), ids=NOT_SCALED)
@needs_simplejpeg
def test_all_else_is_decoded_as_by_torchvision(data: bytes) -> None:
    assert distance(data) == 0


@needs_simplejpeg
def test_without_resizing_nothing_is_scaled() -> None:
    assert distance(FILES["colour"], resize="none") == 0


BAD: dict[str, bytes] = {
    "empty": b"",
    "text": b"text named .jpg",
    "cut off": FILES["colour"][:5000],
    "cut off in its header": FILES["colour"][:300],
    "a second scan": FILES["colour"][:-2] + FILES["colour"][FILES["colour"].index(b"\xff\xda") :],
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
@needs_simplejpeg
def test_rejects_are_those_of_torchvision(data: bytes) -> None:
    reason = outcome(transform("torchvision"), data)
    assert isinstance(reason, str)
    assert outcome(transform("turbojpeg"), data) == reason


@needs_simplejpeg
def test_damage_that_torchvision_passes_over_is_passed_over() -> None:
    data = FILES["colour"]
    damaged = data[:-3000] + b"\xff\xd9"
    assert not isinstance(outcome(transform("torchvision"), damaged), str)
    assert distance(damaged) == 0  # decoded by torchvision itself


@needs_simplejpeg
def test_limits_hold_before_anything_is_decoded() -> None:
    line = encoded(Image.new("RGB", (30_000, 1)), "JPEG")
    for limit in (10_000, 10**6):
        reasons = [outcome(transform(name, max_pixels=limit), line) for name in ("torchvision", "turbojpeg")]
        assert reasons[0] == reasons[1]
        assert f"image.max_pixels{' = 10,000' * (limit == 10_000)}" in str(reasons[0])


@needs_simplejpeg
def test_many_files_keep_their_order() -> None:
    apply = transform("turbojpeg")
    files = [FILES["colour"], b"text", NOT_SCALED["PNG"], FILES["grey"]]
    found = apply.many(files, [""] * 4)
    assert [isinstance(item, BadImage) for item in found] == [False, True, False, False]
    for item, data in zip(found, files, strict=True):
        assert isinstance(item, BadImage) or torch.equal(item[0].img_3HW, apply(data))


def test_without_the_package_the_configuration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbojpeg, "simplejpeg", None)
    with pytest.raises(ConfigError, match=r"image\.decoder: turbojpeg needs .*pip install 'vqtok\[turbojpeg\]'"):
        transform("turbojpeg")
