"""What would take memory or time out of proportion is refused before it is decoded."""

import zlib

from image_files import RGB, png_of, refused
from PIL import Image
from support import encoded

from pipeline.source.images.decoding import decode_rgb


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    large = png_of(12_000, 12_000, 1, 0, zlib.compress(b""))
    assert refused(large) == "12000x12000 pixels are more than image.max_pixels = 100,000,000"
    data = encoded(Image.fromarray(RGB), "JPEG")
    assert "more than image.max_pixels = 2,239" in refused(data, 40 * 56 - 1)
    assert decode_rgb(data, 40 * 56).shape == (3, 40, 56)


def test_a_jpeg_of_many_scans_is_refused() -> None:
    def with_scans(data: bytes, count: int) -> bytes:
        at, end = data.index(b"\xff\xda"), data.rindex(b"\xff\xd9")
        return data[:at] + data[at:end] * count + data[end:]

    picture_data = Image.fromarray(RGB)
    assert "more than one scan" in refused(with_scans(encoded(picture_data, "JPEG"), 2))
    assert "more than one scan" in refused(with_scans(encoded(picture_data, "JPEG"), 200))
    assert "scans, more than 100" in refused(with_scans(encoded(picture_data, "JPEG", progressive=True), 20))
