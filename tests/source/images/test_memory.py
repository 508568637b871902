"""A machine without memory is not taken for a damaged image."""

import contextlib
import resource
import zlib
from pathlib import Path
from typing import Any

import pytest
from image_files import png_of
from PIL import Image
from support import encoded, in_a_child

from pipeline.source.images.decoding import decode_rgb


def outcome_without_memory(data: bytes) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**23, resource.RLIM_INFINITY))
    taken = []
    with contextlib.suppress(MemoryError):
        while True:
            taken.append(bytearray(2**22))  # whatever an earlier test has left free within the process
    taken.pop()
    try:
        return str(decode_rgb(data, 10**9).shape)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


LARGE: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {"compress_level": 1}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),  # libjpeg itself runs out
    ("GIF", {}),
    ("TIFF", {}),
    ("PPM", {}),
]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("format", "options"), LARGE, ids=str)
def test_running_out_of_memory_is_the_machines_fault(format: str, options: dict[str, Any]) -> None:
    data = encoded(Image.new("L", (5000, 5000)), format, **options)
    assert in_a_child(outcome_without_memory, data).startswith("MemoryError")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_an_image_of_too_many_pixels_costs_no_memory() -> None:
    bomb = png_of(50_000, 50_000, 1, 0, zlib.compress(bytes(10**6), 9))
    expected = "BadImage: 50000x50000 pixels are more than image.max_pixels = 1,000,000,000"
    assert in_a_child(outcome_without_memory, bomb) == expected
