"""Decoding on a device: what goes there in groups, and what the CPU keeps. The device of these tests is the CPU."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from support import encoded, picture
from torch import Tensor

from pipeline.config import ImageConfig
from pipeline.errors import BadImage, ConfigError
from pipeline.source.images import nvjpeg
from pipeline.source.images.decoding import Picture, TorchvisionDecoder
from pipeline.source.images.transform import ImageTransform

LIMIT = 10**8
CPU = torch.device("cpu")
RGB = Image.fromarray(picture(40, 56))
PLAIN = encoded(RGB, "JPEG")


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def two_scans(data: bytes) -> bytes:
    """Refused by libjpeg when it has decoded all of it."""
    at, end = data.index(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[at:]


FOR_THE_DEVICE: dict[str, bytes] = {
    "colour": PLAIN,
    "grey": encoded(RGB.convert("L"), "JPEG"),
    "progressive": encoded(RGB, "JPEG", progressive=True),
    **{f"turned {number}": encoded(RGB, "JPEG", exif=exif(number)) for number in range(1, 9)},
}
FOR_THE_CPU: dict[str, bytes] = {
    "PNG": encoded(RGB, "PNG"),
    "four inks": encoded(RGB.convert("CMYK"), "JPEG"),
    "stored as RGB": encoded(RGB, "JPEG", keep_rgb=True),
    "stored as RGB, with EXIF": encoded(RGB, "JPEG", keep_rgb=True, exif=exif(6)),
    "cut off": PLAIN[: len(PLAIN) // 2],
    "empty": b"",
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each call gave to the device."""
    found: list[int] = []
    decode = nvjpeg.decode_jpeg

    def counted(files: Sequence[Tensor], *arguments: Any, **options: Any) -> Any:
        found.append(len(files))
        return decode(files, *arguments, **options)

    monkeypatch.setattr(nvjpeg, "decode_jpeg", counted)
    return found


def assert_as_torchvision(files: Sequence[bytes]) -> None:
    ours = list(nvjpeg.NvjpegDecoder(LIMIT, CPU)(files))
    for one, other in zip(ours, TorchvisionDecoder(LIMIT)(files), strict=True):
        if isinstance(other, BadImage):
            assert str(one) == str(other)
        else:
            assert isinstance(one, Picture)
            assert torch.equal(one.img_3HW, other.img_3HW)
            assert (one.height, one.width) == (other.height, other.width)


def test_plain_jpegs_are_decoded_in_one_call(calls: list[int]) -> None:
    assert_as_torchvision(list(FOR_THE_DEVICE.values()))
    assert calls == [len(FOR_THE_DEVICE)]


@pytest.mark.parametrize("data", FOR_THE_CPU.values(), ids=FOR_THE_CPU)
def test_odd_files_never_reach_the_device(data: bytes, calls: list[int]) -> None:
    assert_as_torchvision([data])
    assert calls == []


def test_order_is_kept_among_files_of_all_kinds(calls: list[int]) -> None:
    mixed = [data for pair in zip(FOR_THE_CPU.values(), FOR_THE_DEVICE.values(), strict=False) for data in pair]
    assert_as_torchvision(mixed)
    assert calls == [1] * len(FOR_THE_CPU)


def test_a_bad_image_costs_only_itself(calls: list[int]) -> None:
    assert_as_torchvision([PLAIN, two_scans(PLAIN), PLAIN])
    assert calls == [3, 1, 1, 1]


def test_a_group_is_bounded_by_its_pixels(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "_GROUP_PIXELS", 3 * 40 * 56)
    assert_as_torchvision([PLAIN] * 7)
    assert calls == [3, 3, 1]


def test_nothing_is_decoded_of_nothing(calls: list[int]) -> None:
    assert list(nvjpeg.NvjpegDecoder(LIMIT, CPU)([])) == []
    assert calls == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_the_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"image\.decoder: nvjpeg needs a CUDA device.*image\.decoder=torchvision"):
        ImageTransform(ImageConfig(size=32, decoder="nvjpeg"))


def test_without_nvjpeg_the_configuration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_built(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support\nat a place in C++")

    monkeypatch.setattr(nvjpeg, "decode_jpeg", not_built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with pytest.raises(ConfigError, match=r"does not work here: .*not compiled with nvJPEG support; install"):
        ImageTransform(ImageConfig(size=32, decoder="nvjpeg"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_cuda_device_pixels_are_close_and_stay_there() -> None:
    apply = ImageTransform(ImageConfig(size=32, decoder="nvjpeg"))
    for data in (*FOR_THE_DEVICE.values(), FOR_THE_CPU["PNG"]):
        pixels = apply(data)
        assert pixels.device.type == "cuda"
        expected = ImageTransform(ImageConfig(size=32))(data)
        assert (pixels.cpu().float() - expected.float()).abs().mean() < 2
