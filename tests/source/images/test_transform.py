"""From the bytes of many image files to uint8 pixels of one size, in any thread."""

import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from image_files import FILES, RGB
from PIL import Image
from support import encoded, picture
from torch import Tensor

from pipeline.config import ImageConfig
from pipeline.errors import BadImage
from pipeline.source.images.transform import ImageTransform


def fingerprints(data: list[bytes], apply: Callable[[bytes], Tensor]) -> list[str]:
    return [hashlib.sha256(apply(item).numpy().tobytes()).hexdigest() for item in data]


def test_threads_decode_what_one_thread_decodes() -> None:
    apply = ImageTransform(ImageConfig(size=(32, 24)))
    data = list(FILES.values()) * 2
    serial = fingerprints(data, apply)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == serial for found in pool.map(lambda _: fingerprints(data, apply), range(8)))


def test_many_files_are_what_each_of_them_is() -> None:
    small = [encoded(Image.fromarray(picture(height, 40)), "JPEG") for height in (30, 40, 50)]
    damaged = small[1][:-2] + small[1][small[1].index(b"\xff\xda") :]  # noticed behind its last row only
    files = [*small, b"text", encoded(Image.fromarray(RGB), "PNG"), damaged, small[0], b"", small[2]]
    apply = ImageTransform(ImageConfig(size=(32, 24)))
    found = apply.many(files, [""] * len(files))
    assert [isinstance(item, BadImage) for item in found] == [data in (b"text", damaged, b"") for data in files]
    for data, item in zip(files, found, strict=True):
        if isinstance(item, BadImage):
            with pytest.raises(BadImage, match=re.escape(str(item))):
                apply(data)
        else:
            assert torch.equal(item[0].img_3HW, apply(data))
    assert apply.many([], []) == []


def test_decoders_are_part_of_the_identity() -> None:
    names = ("torchvision", "turbojpeg", "nvjpeg", "pillow")
    identities = [ImageConfig(size=32, decoder=name).identity() for name in names]
    assert [identity["decoder"] for identity in identities] == list(names)
