"""The photographs of the sample set: real ones that ship inside the scikit-image and scikit-learn packages.

Files are found by their place inside the installed package. Importing the packages would take seconds, and
their own functions would download what is missing.
"""

import importlib.util
from pathlib import Path

from PIL import Image

from pipeline.errors import VqtokError
from pipeline.records import Record

REMEDY = "install the photographs with: pip install 'vqtok[sample]'"


class Photograph(Record):
    """One photograph inside an installed package."""

    name: str
    package: str
    path: str
    """POSIX path inside the package."""
    crops: int
    """How many crops the sample set cuts from it."""
    held_out: bool = False
    """Whether training must never see it."""


def _skimage(file: str, crops: int, held_out: bool = False) -> Photograph:
    name = Path(file).stem.replace("_", "-")
    return Photograph(name=name, package="skimage", path=f"data/{file}", crops=crops, held_out=held_out)


def _sklearn(file: str, crops: int) -> Photograph:
    return Photograph(name=Path(file).stem, package="sklearn", path=f"datasets/images/{file}", crops=crops)


PHOTOGRAPHS = (
    _skimage("astronaut.png", 400),
    _skimage("chelsea.png", 160, held_out=True),
    _skimage("coffee.png", 160, held_out=True),
    _skimage("rocket.jpg", 320),
    _skimage("hubble_deep_field.jpg", 180),
    _skimage("retina.jpg", 180),
    _skimage("ihc.png", 300),
    # One scene seen twice: both views must stay on the same side of the split.
    _skimage("motorcycle_left.png", 300),
    _skimage("motorcycle_right.png", 300),
    _skimage("camera.png", 140),
    _skimage("coins.png", 100),
    _sklearn("china.jpg", 490),
    _sklearn("flower.jpg", 490),
)
"""In the order of their class numbers. `camera` and `coins` are grey, and so are the crops of them."""


def open_photograph(photograph: Photograph) -> Image.Image:
    """The photograph with its header read and its pixels still on disk: a grey or an RGB image.

    Raises VqtokError naming what to install.
    """
    path = _find(photograph)
    try:
        image = Image.open(path)
    except OSError as error:
        raise VqtokError(f"{path}: cannot be read as a photograph ({error}); {REMEDY}") from error
    if image.mode not in ("L", "RGB"):
        raise VqtokError(f"{path}: has colour mode {image.mode}, L or RGB is expected; {REMEDY}")
    return image


def _find(photograph: Photograph) -> Path:
    spec = importlib.util.find_spec(photograph.package)
    if spec is None or not spec.submodule_search_locations:
        raise VqtokError(f"the package {photograph.package} is not installed; {REMEDY}")
    path = Path(spec.submodule_search_locations[0]) / photograph.path
    if not path.is_file():
        raise VqtokError(f"{path}: the photograph is missing; {REMEDY}")
    return path
