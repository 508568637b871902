"""Kinds of image files told by their contents."""

import io
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import Child, Done
from image_files import GREY, RGB, decoded, distance, oriented, refused
from PIL import Image
from support import encoded

from pipeline.errors import BadImage, VqtokError
from pipeline.source.images import formats
from pipeline.source.images.decoding import decode_rgb

COLOUR = Image.fromarray(RGB)


@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG2000", {}), ("JPEG2000", {"no_jp2": True}), ("TGA", {}), ("TGA", {"compression": "tga_rle"})],
)
def test_lossless_colour_is_exact(format: str, options: dict[str, object]) -> None:
    assert distance(decoded(encoded(COLOUR, format, **options)), RGB) == 0


def test_avif_is_decoded_upright_and_over_white() -> None:
    data = encoded(COLOUR, "AVIF", quality=100, subsampling="4:4:4", exif=oriented(6))
    assert distance(decoded(data), np.rot90(RGB, -1)) <= 8
    clear = encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "AVIF", quality=100)
    assert distance(decoded(clear), np.full((16, 16, 3), 255, np.uint8)) <= 2


def test_of_several_pictures_the_first_counts() -> None:
    other = Image.fromarray(255 - RGB)
    mpo = encoded(COLOUR, "MPO", save_all=True, append_images=[other], quality=95, subsampling=0)
    jpeg = encoded(COLOUR, "JPEG", quality=95, subsampling=0)
    assert distance(decoded(mpo), decoded(jpeg)) <= 2
    avif = encoded(COLOUR, "AVIF", save_all=True, append_images=[other], quality=100, subsampling="4:4:4")
    assert distance(decoded(avif), RGB) <= 8


def test_sixteen_bits_of_jpeg_2000_are_scaled() -> None:
    data = encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "JPEG2000")
    assert distance(decoded(data), GREY[:, :, None].repeat(3, 2)) == 0


@pytest.mark.parametrize("plugin", [formats.HEIF, formats.JXL], ids=lambda plugin: plugin.name)
def test_a_plugin_reads_its_format(plugin: formats.Plugin) -> None:
    pytest.importorskip({"HEIF": "pillow_heif", "JXL": "pillow_jxl"}[plugin.format])
    plugin.register()
    data = encoded(COLOUR, plugin.format, **{"HEIF": {"quality": 100}, "JXL": {"lossless": True}}[plugin.format])
    assert formats.plugin_for(data) is plugin
    assert distance(decoded(data), RGB) <= 12
    assert "more than image.max_pixels = 100" in refused(data, 100)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
JXL = b"\xff\x0a" + bytes(50)


@pytest.mark.parametrize(("data", "package"), [(HEIC, "pillow-heif"), (JXL, "pillow-jxl-plugin")])
def test_without_a_plugin_its_package_is_named(monkeypatch: pytest.MonkeyPatch, data: bytes, package: str) -> None:
    monkeypatch.setattr(formats, "_is_registered", lambda plugin: False)
    assert f"pip install {package}" in refused(data)


def test_files_of_avif_are_not_taken_for_heif() -> None:
    avif = encoded(COLOUR, "AVIF")
    assert not formats.is_heif(avif)
    assert not formats.is_heif(avif.replace(b"ftypavif", b"ftypmif1", 1))  # the brand of the container
    assert formats.is_heif(HEIC)


def test_a_missing_codec_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.features, "check", lambda codec: False)
    for format, codec in (("AVIF", "avif"), ("JPEG2000", "jpg_2000")):
        with pytest.raises(VqtokError, match=f"lacks {codec}"):
            decoded(encoded(COLOUR, format))
    assert distance(decoded(encoded(COLOUR, "PNG")), RGB) == 0


def decode(data: bytes) -> None:
    try:
        decode_rgb(data, 10**8)
    except BadImage:
        print("refused")


def decode_with_pillow(data: bytes) -> None:
    Image.open(io.BytesIO(data)).load()


def test_libtiff_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "TIFF", compression="tiff_adobe_deflate")
    broken = data[:3000] + bytes(200) + data[3200:]
    assert "Decod" in Child(decode_with_pillow, broken, folder=tmp_path).wait().err  # what it would say
    assert Child(decode, broken, folder=tmp_path).wait() == Done(0, "refused\n", "")


def test_opening_decodes_nothing() -> None:
    for format in ("JPEG", "PNG", "AVIF", "JPEG2000", "TGA", "TIFF", "WEBP"):
        data = encoded(COLOUR, format)
        with formats.opened(data) as image:
            assert (image.format, image.size) == (format, COLOUR.size)
