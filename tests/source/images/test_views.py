"""Which parts of an image its views are: numbers alone, the same wherever they are worked out."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import FILES
from PIL import Image
from support import encoded, picture

from pipeline.config import ImageConfig
from pipeline.errors import BadImage
from pipeline.source.images import turbojpeg
from pipeline.source.images.decoding import TorchvisionDecoder
from pipeline.source.images.fitting import Fitting, Shot
from pipeline.source.images.transform import ImageTransform
from pipeline.source.images.views import Box, View, views_of

RANDOM: dict[str, Any] = {"random": 4, "scale": (0.5, 0.8), "seed": 1}

TURBO = pytest.param("turbojpeg", marks=pytest.mark.skipif(turbojpeg.simplejpeg is None, reason="no simplejpeg"))


def shots(data: bytes, key: str = "", **options: Any) -> list[Shot]:
    (found,) = ImageTransform(ImageConfig(**options)).many([data], [key])
    assert not isinstance(found, BadImage), found
    return found


def test_random_views_never_change() -> None:
    """Whoever changes these changes stores that are half made."""
    image = ImageConfig(size=(16, 24), views=RANDOM)
    assert image.covered == (32, 48)
    assert views_of(image, "n0144/größer", 32, 57) == [
        View(Box(1, 15, 22, 33), flip=True),
        View(Box(6, 1, 20, 30), flip=True),
        View(Box(5, 12, 24, 36), flip=True),
        View(Box(1, 15, 25, 38), flip=True),
    ]
    assert views_of(image, "n0144/größer", 32, 57) != views_of(image, "n0144/grösser", 32, 57)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    have=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    resize=st.sampled_from(["shortest", "stretch"]),
    key=st.text(),
    seed=st.integers(0, 2**70),
)
def test_random_crops_lie_in_the_image(
    size: tuple[int, int], scale: list[float], have: tuple[int, int], resize: Any, key: str, seed: int
) -> None:
    image = ImageConfig(size=size, resize=resize, views={"random": 3, "scale": scale, "seed": seed})
    height, width = Fitting(image).resized_size(*have)
    side = min(image.covered)
    for box, _ in views_of(image, key, height, width):
        assert 0 <= box.top <= height - box.height and 0 <= box.left <= width - box.width
        assert max(round(scale[0] * side), 1) <= min(box.height, box.width) <= max(round(scale[1] * side), 1)
        assert abs(box.height * size[1] - box.width * size[0]) <= max(*size, 2 * max(box.height, box.width))


def test_random_crops_are_spread_evenly() -> None:
    image = ImageConfig(size=32, resize_to=40, views={"random": 10, "scale": (0.8, 1.0)})
    views = [view for key in range(400) for view in views_of(image, str(key), 40, 60)]
    assert {min(box.height, box.width) for box, _ in views} == set(range(32, 41))
    assert 0.45 < np.mean([flip for _, flip in views]) < 0.55
    smallest = [box for box, _ in views if box.height == 32]
    assert {box.top for box in smallest} == set(range(9))
    assert {box.left for box in smallest} == set(range(29))
    unmirrored = ImageConfig(size=32, resize_to=40, views={"random": 10, "flip": False})
    assert not any(flip for _, flip in views_of(unmirrored, "0", 40, 60))


def test_random_views_need_no_enlarging_unless_they_are_very_small() -> None:
    sides = {(0.8, 1.0): 320, (0.75, 0.9): 342, (1.0, 1.0): 256, (0.08, 1.0): 512}
    for scale, side in sides.items():
        assert ImageConfig(size=256, views={"random": 1, "scale": scale}).covered == (side, side)
    assert ImageConfig(size=256, resize_to=300, views={"random": 1}).covered == (300, 300)


@pytest.mark.parametrize("decoder", ["torchvision", "pillow", TURBO])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "grey JPEG"])
@pytest.mark.parametrize("views", ["center", "flip", "ten_crop", RANDOM], ids=["center", "flip", "ten_crop", "random"])
def test_views_are_the_parts_of_the_resized_image_that_they_say(decoder: Any, name: str, views: Any) -> None:
    size = (16, 20)
    image = ImageConfig(size=size, decoder=decoder, resize_to=24, views=views)
    (whole,) = shots(FILES[name], size=(40, 56) if name != "grey JPEG" else (56, 40), resize="none")
    height, width = Fitting(image).resized_size(*whole.img_3HW.shape[1:])
    (resized,) = shots(FILES[name], size=(height, width), resize="stretch", decoder=decoder)
    (found,) = ImageTransform(image).many([FILES[name]], ["a"])
    assert isinstance(found, list)
    assert [shot.view for shot in found] == views_of(image, "a", height, width)
    for img_3HW, (box, flip) in found:
        part = resized.img_3HW[:, box.top : box.top + box.height, box.left : box.left + box.width]
        file = encoded(Image.fromarray(part.permute(1, 2, 0).numpy()), "PNG")
        (expected,) = shots(file, size=size, resize="stretch", decoder=decoder)
        assert torch.equal(img_3HW, expected.img_3HW.flip(-1) if flip else expected.img_3HW)


@pytest.mark.parametrize("decoder", ["torchvision", "pillow", TURBO])
def test_the_first_of_two_is_the_centre(decoder: Any) -> None:
    data = encoded(Image.fromarray(picture(97, 143)), "JPEG")
    (alone,) = shots(data, size=32, decoder=decoder)
    first, mirror = shots(data, size=32, decoder=decoder, views="flip")
    assert torch.equal(first.img_3HW, alone.img_3HW)
    assert torch.equal(mirror.img_3HW, alone.img_3HW.flip(-1))
    assert (first.view, mirror.view) == (alone.view, View(alone.view.box, flip=True))


def test_an_image_is_decoded_once_for_all_of_its_views(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = ImageTransform(ImageConfig(size=16, resize_to=20, views="ten_crop"))
    decoded: list[int] = []
    decode = TorchvisionDecoder.__call__

    def counted(decoder: TorchvisionDecoder, files: Any) -> Any:
        decoded.append(len(files))
        return decode(decoder, files)

    monkeypatch.setattr(TorchvisionDecoder, "__call__", counted)
    (found,) = apply.many([FILES["JPEG"]], [""])
    assert isinstance(found, list)
    assert (len(found), decoded) == (10, [1])


def test_small_views_do_not_hold_a_large_image() -> None:
    data = encoded(Image.new("RGB", (900, 900)), "JPEG")
    kept = shots(data, size=30, resize="none", views="flip")
    assert [shot.img_3HW.untyped_storage().nbytes() for shot in kept] == [30 * 30 * 3] * 2


# Image section, size of the resized image, and the boxes (top, left, height, width) with their mirroring.
PLACES: list[tuple[dict[str, Any], tuple[int, int], list[tuple[Box, bool]]]] = [
    ({"size": 32}, (32, 37), [(Box(0, 2, 32, 32), False)]),
    ({"size": 32}, (32, 39), [(Box(0, 3, 32, 32), False)]),
    ({"size": 32, "decoder": "pillow"}, (32, 39), [(Box(0, 4, 32, 32), False)]),  # as torchvision's CenterCrop
    ({"size": 32, "decoder": "pillow", "resize": "adm"}, (32, 39), [(Box(0, 3, 32, 32), False)]),
    ({"size": (8, 12), "views": "flip"}, (9, 12), [(Box(0, 0, 8, 12), False), (Box(0, 0, 8, 12), True)]),
    (
        {"size": 8, "resize_to": 11, "views": "ten_crop"},
        (11, 16),
        [
            *((Box(*at, 8, 8), False) for at in ((0, 2), (0, 5), (3, 2), (3, 5), (2, 4))),
            *((Box(*at, 8, 8), True) for at in ((0, 5), (0, 2), (3, 5), (3, 2), (2, 3))),
        ],
    ),
]


@pytest.mark.parametrize(("options", "resized", "expected"), PLACES)
def test_where_views_lie(options: dict[str, Any], resized: tuple[int, int], expected: list[tuple[Box, bool]]) -> None:
    assert views_of(ImageConfig(**options), "", *resized) == [View(*view) for view in expected]
