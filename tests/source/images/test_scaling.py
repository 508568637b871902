"""torch's operators called directly: the pixels of torchvision's `resize`, wherever they are written."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.source.images.canvas import Canvas
from pipeline.source.images.scaling import Scaling

SIDES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def random_image(height: int, width: int, layout: str) -> Tensor:
    img_HW3 = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    if layout == "part":  # of a larger one
        return torch.nn.functional.pad(img_HW3, (0, 0, 1, 2)).permute(2, 0, 1)[:, :, 1:-2]
    img_3HW = img_HW3.permute(2, 0, 1)
    return img_3HW if layout == "channels last" else img_3HW.contiguous()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@settings(max_examples=examples(60), deadline=None)
@given(have=SIDES, want=SIDES, layout=st.sampled_from(["channels last", "channels first", "part"]))
def test_pixels_are_those_of_torchvision(
    interpolation: str, have: tuple[int, int], want: tuple[int, int], layout: str
) -> None:
    img_3HW = random_image(*have, layout)
    there = transforms.resize(img_3HW, list(want), InterpolationMode(interpolation), antialias=True)
    if have == want:
        return
    scaling = Scaling(interpolation)
    assert torch.equal(scaling(img_3HW, want), there)
    place = Canvas(3, want).places[1]
    written = scaling(img_3HW, want, place)
    assert torch.equal(written, there)
    assert layout != "channels last" or written is place.img_3HW


def test_a_processor_without_an_operator_for_uint8_is_left_to_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    img_3HW = random_image(40, 50, "channels last")
    there = transforms.resize(img_3HW, [30, 20], InterpolationMode.BILINEAR, antialias=True)
    assert torch.equal(Scaling("bilinear")(img_3HW, (30, 20)), there)
