"""Pixels that published scripts make of an image file: each script's steps, written here from its description."""

import io
import re
from typing import Any

import numpy as np
import pytest
from image_files import FILES
from PIL import Image
from support import ROOT, encoded, picture
from torchvision.transforms import CenterCrop, InterpolationMode, Resize, TenCrop

from pipeline.config import ImageConfig, load_config
from pipeline.errors import BadImage
from pipeline.source.images.fitting import Shot
from pipeline.source.images.transform import ImageTransform

SIZES = [(64, 64), (65, 64), (64, 67), (100, 151), (151, 100), (128, 128), (127, 400), (300, 257), (31, 40), (72, 79)]
"""(height, width): odd and even margins, to be shrunk several times by half, or enlarged."""


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def shots(data: bytes, **options: Any) -> list[np.ndarray]:
    return shots_of(ImageConfig(decoder="pillow", **options), data)


def shots_of(image: ImageConfig, data: bytes) -> list[np.ndarray]:
    (found,) = ImageTransform(image).many([data], ["a key"])
    assert isinstance(found, list), found
    return [hwc(shot) for shot in found]


def hwc(shot: Shot) -> np.ndarray:
    array: np.ndarray = shot.img_3HW.permute(1, 2, 0).numpy()
    return array


def adm(image: Image.Image, side: int) -> Image.Image:
    """Halve with a box filter while the shorter side is at least twice the wanted one, scale it bicubic to what is
    wanted, cut out the middle."""
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    top, left = (image.height - side) // 2, (image.width - side) // 2
    return image.crop((left, top, left + side, top + side))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_what_published_scripts_make_of_a_picture(height: int, width: int) -> None:
    data = encoded(Image.fromarray(picture(height, width)), "JPEG", quality=95)
    image = Image.open(io.BytesIO(data)).convert("RGB")

    # VAR: the shorter side to 9/8 of the size with LANCZOS, the middle.
    (ours,) = shots(data, size=32, resize_to=36, interpolation="lanczos")
    assert np.array_equal(ours, pixels(CenterCrop(32)(Resize(36, InterpolationMode.LANCZOS)(image))))

    # LlamaGen: ADM's crop and its mirror image.
    ours, mirrored = shots(data, size=32, resize="adm", views="flip")
    assert np.array_equal(ours, pixels(adm(image, 32)))
    assert np.array_equal(mirrored, ours[:, ::-1])

    # LlamaGen: ten crops of a square 1.1 times as large.
    ten = TenCrop(32)(adm(image, 35))
    found = shots(data, size=32, resize="adm", resize_to=35, views="ten_crop")
    assert len(found) == 10
    for ours, theirs in zip(found, ten, strict=True):
        assert np.array_equal(ours, pixels(theirs))


# resize, image.size, and the (width, height) that a picture of 71 x 50 is scaled to.
RESIZES = [("shortest", (24, 40), (40, 28)), ("stretch", (24, 40), (40, 24)), ("none", (24, 30), (71, 50))]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize(("resize", "size", "scaled"), RESIZES)
def test_pillow_resizes_with_every_filter(
    interpolation: str, resize: str, size: tuple[int, int], scaled: tuple[int, int]
) -> None:
    image = Image.fromarray(picture(50, 71))
    (ours,) = shots(encoded(image, "PNG"), size=size, resize=resize, interpolation=interpolation)
    assert np.array_equal(ours, pixels(CenterCrop(size)(image.resize(scaled, Image.Resampling[interpolation.upper()]))))


@pytest.mark.parametrize("name", FILES)
def test_plain_pixels_are_those_of_convert(name: str) -> None:
    """Whatever EXIF says, and whatever is transparent."""
    image = Image.open(io.BytesIO(FILES[name])).convert("RGB")
    (ours,) = shots(FILES[name], size=image.size[::-1], resize="none", plain=True)
    assert np.array_equal(ours, pixels(image))


def test_without_it_pictures_are_upright_and_transparency_is_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(picture(20, 30)), "PNG", exif=exif)
    clear = encoded(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "PNG")
    assert shots(turned, size=(30, 20), resize="none")[0].shape == (30, 20, 3)
    assert shots(turned, size=(20, 30), resize="none", plain=True)[0].shape == (20, 30, 3)
    assert shots(clear, size=4)[0].min() == 255
    assert shots(clear, size=4, plain=True)[0].max() == 9


def test_limits_hold_and_bad_files_are_rejects() -> None:
    apply = ImageTransform(ImageConfig(size=32, decoder="pillow", max_pixels=1000))
    good = encoded(Image.fromarray(picture(20, 30)), "JPEG")
    large = encoded(Image.new("RGB", (40, 40)), "JPEG")
    bad = {b"": "is empty", b"text": "known format", good[:200]: "[Tt]runcated", large: "40x40 pixels are"}
    for item, reason in zip(apply.many([*bad], [""] * len(bad)), bad.values(), strict=True):
        assert isinstance(item, BadImage)
        assert re.search(reason, str(item))


def test_the_shipped_configurations_make_the_pixels_of_their_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGENET", "data")
    var, llamagen = (load_config(ROOT / f"configs/{name}256.yaml").image for name in ("var", "llamagen"))
    for height, width in ((375, 500), (701, 467), (1200, 1601)):
        exif = Image.Exif()
        exif[0x0112] = 8
        data = encoded(Image.fromarray(picture(height, width)), "JPEG", quality=95, exif=exif)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        (ours,) = shots_of(var, data)
        assert np.array_equal(ours, pixels(CenterCrop(256)(Resize(288, InterpolationMode.LANCZOS)(image))))
        ours, mirrored = shots_of(llamagen, data)
        assert np.array_equal(ours, pixels(adm(image, 256)))
        assert np.array_equal(mirrored, ours[:, ::-1])
