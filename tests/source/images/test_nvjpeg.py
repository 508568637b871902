"""Decoding on a device: what goes there in groups, and what the CPU keeps. The device of these tests is the CPU."""

import functools
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pretended_gpu import GPU, GpuTensor, Stream, decode_at_once
from support import encoded, picture
from torch import Tensor

from pipeline.config import ImageConfig, SourceConfig
from pipeline.errors import BadImage, ConfigError
from pipeline.source.batches import image_batches
from pipeline.source.filling import FillingOnDevice
from pipeline.source.images import nvjpeg
from pipeline.source.images import transform as transform_module
from pipeline.source.images.decoding import Picture, TorchvisionDecoder
from pipeline.source.images.transform import ImageTransform
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection

pytest_plugins = ["pretended_gpu"]

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


@pytest.fixture
def gpu(default_stream: Stream, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The default stream of a pretended GPU that decodes in groups of two."""
    monkeypatch.setattr(transform_module, "cuda_device", lambda: GPU)
    monkeypatch.setattr(nvjpeg, "decode_jpeg", functools.partial(decode_at_once, nvjpeg.decode_jpeg))
    monkeypatch.setattr(nvjpeg, "_GROUP_PIXELS", 2 * 40 * 56)
    return default_stream


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


@pytest.mark.parametrize("reason", ["CUDA out of memory. Tried to allocate 2.00 GiB.", "Failed to decode batch: 5"])
def test_too_little_memory_is_no_reason_for_other_pixels(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's pixels would be other ones; the device's of one image at a time are the same."""
    decode, most, sizes = nvjpeg.decode_jpeg, 1, list[int]()

    def short(files: Sequence[Tensor], *arguments: Any, **options: Any) -> Any:
        sizes.append(len(files))
        if "device" in options and len(files) > most:
            raise RuntimeError(f"Error while decoding JPEG images: {reason}\nException raised from somewhere")
        return decode(files, *arguments, **options)

    monkeypatch.setattr(nvjpeg, "decode_jpeg", short)
    assert_as_torchvision([PLAIN] * 3)
    assert sizes == [3, 1, 1, 1]
    most = 0
    with pytest.raises(MemoryError, match=r"^image\.decoder: nvjpeg: Error while decoding JPEG images: .*[^\n]$"):
        list(nvjpeg.NvjpegDecoder(LIMIT, CPU)([PLAIN] * 3))


def test_a_device_that_fails_is_not_replaced_by_the_cpu(gpu: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("Error while decoding JPEG images: Failed to decode batch: 6")

    def tell(device: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(nvjpeg, "decode_jpeg", fail)
    monkeypatch.setattr(torch.cuda, "synchronize", tell)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        ImageTransform(ImageConfig(size=24, decoder="nvjpeg")).many([PLAIN], [""])


def test_the_version_of_nvjpeg_is_that_of_the_library_which_is_loaded() -> None:
    loaded = "libnvjpeg" in Path("/proc/self/maps").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+", nvjpeg.nvjpeg_version() or "") if loaded else nvjpeg.nvjpeg_version() is None


def test_a_group_is_bounded_by_its_pixels(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "_GROUP_PIXELS", 3 * 40 * 56)
    assert_as_torchvision([PLAIN] * 7)
    assert calls == [3, 3, 1]


def test_a_hundred_files_share_a_call_however_small_batches_are(
    calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transform_module, "cuda_device", lambda: CPU)
    transform = ImageTransform(ImageConfig(size=32, decoder="nvjpeg"))
    samples = [Sample(number, str(number), {"jpg": PLAIN}) for number in range(250)]
    with ThreadPoolExecutor(1) as pool:
        found = list(image_batches(samples, Selection(SourceConfig(shards="x.tar")), transform, 8, pool))
    assert [len(batch.rows) for batch in found] == [8] * 31 + [2]
    assert calls == [100, 100, 50]


def test_nothing_is_decoded_of_nothing(calls: list[int]) -> None:
    assert list(nvjpeg.NvjpegDecoder(LIMIT, CPU)([])) == []
    assert calls == []


MANY = [encoded(Image.fromarray(np.roll(picture(40, 56), 7 * number, 1)), "JPEG") for number in range(6)]
RESIZED, CUT_OUT = {"size": (24, 32)}, {"size": 24, "resize": "none"}


def transformed(gpu: Stream, options: Any) -> list[Tensor]:
    """MANY in several orders as batches, which are stacked on the default stream and read at the very end."""
    transform = ImageTransform(ImageConfig(decoder="nvjpeg", **options))
    batches = []
    for first in range(3):
        found = transform.many([*MANY[first:], *MANY[:first]], [""] * len(MANY))
        filling = FillingOnDevice(len(MANY) + 1, transform.size, transform.device)
        for shots in found:
            if isinstance(shots, list):
                filling.add(shots)
        batches.append(filling.take())
        del found, filling, shots
    gpu.synchronize()
    return [batch.memory.clone() for batch in batches if isinstance(batch, GpuTensor)]


def are_right(gpu: Stream, options: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether pixels are those of a GPU on which every operation ends before the next one begins."""
    found = transformed(gpu, options)
    monkeypatch.setattr(Stream, "launch_blocking", True)
    expected = transformed(gpu, options)
    monkeypatch.setattr(Stream, "launch_blocking", False)
    assert len(expected) == 3
    assert expected[0][0].float().std() > 50
    return all(map(torch.equal, found, expected))


@pytest.mark.parametrize("options", [RESIZED, CUT_OUT], ids=["resized", "cut out"])
def test_no_memory_is_written_to_while_what_is_queued_reads_it(
    options: Any, gpu: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert are_right(gpu, options, monkeypatch)


def test_threads_that_have_been_given_one_stream_take_turns(gpu: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one of them queues and drops would be overwritten by what the other one decodes."""
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: stream)
    decoder, entered = nvjpeg.NvjpegDecoder(LIMIT, GPU), threading.Event()

    def enter() -> None:
        with decoder.at_work():
            entered.set()

    other = threading.Thread(target=enter)
    with decoder.at_work():
        other.start()
        assert not entered.wait(0.1)
    other.join()
    assert entered.is_set()


def no_wait_at_the_end(decoder: nvjpeg.NvjpegDecoder) -> Any:
    return torch.cuda.stream(torch.cuda.Stream(decoder.device))


@pytest.mark.parametrize(
    ("left_out", "instead"),
    [
        ((nvjpeg.NvjpegDecoder, "_drain"), lambda decoder: None),
        ((nvjpeg.NvjpegDecoder, "at_work"), no_wait_at_the_end),
        ((GpuTensor, "record_stream"), lambda tensor, stream: None),
    ],
    ids=["before each call", "at the end", "the word to the allocator"],
)
def test_each_of_its_waits_is_needed(
    left_out: tuple[type, str], instead: object, gpu: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*left_out, instead)
    assert not all(are_right(gpu, options, monkeypatch) for options in (RESIZED, CUT_OUT))


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
