"""`vqtok sample DIR`: a small data set of real photographs, as WebDataset source shards, without a download.

The photographs ship inside the scikit-image and scikit-learn packages. Each gives crops of several sizes,
now and then mirrored. A crop is one sample: the picture (`.jpg`), the number of its photograph (`.cls`) and
where it was cut (`.json`). Crops of one photograph resemble each other, so whole photographs are held out.

    photos-0000.tar … photos-0007.tar      training
    heldout-0000.tar                       photographs that no crop in photos-* was cut from
    sample.json                            what the set holds; `complete` is written last
"""

import importlib.util
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps
from pydantic import ValidationError

from pipeline.errors import VqtokError
from pipeline.files import LocalFiles
from pipeline.records import JSON, Record, digest_of

MANIFEST = "sample.json"
TRAINING_TARS = 8
HELDOUT_TARS = 1
CROP_SIDES = (64, 96, 128, 192, 256)
"""Sides of the square crops in pixels."""
MAX_SHRINK = 2.0
"""A crop is cut from a square up to this many times its side, then scaled down to it."""
JPEG_QUALITY = 90
SEED = 0


class Photograph(Record):
    """One photograph inside an installed package."""

    name: str
    package: str
    path: str
    """POSIX path inside the package."""
    crops: int
    held_out: bool = False


def _skimage(name: str, file: str, crops: int, held_out: bool = False) -> Photograph:
    return Photograph(name=name, package="skimage", path=f"data/{file}", crops=crops, held_out=held_out)


def _sklearn(name: str, crops: int) -> Photograph:
    return Photograph(name=name, package="sklearn", path=f"datasets/images/{name}.jpg", crops=crops)


PHOTOGRAPHS = (
    _skimage("astronaut", "astronaut.png", 450),
    _skimage("chelsea", "chelsea.png", 160, held_out=True),
    _skimage("coffee", "coffee.png", 160, held_out=True),
    _skimage("rocket", "rocket.jpg", 350),
    _skimage("hubble", "hubble_deep_field.jpg", 200),
    _skimage("retina", "retina.jpg", 200),
    _skimage("ihc", "ihc.png", 350),
    # One scene seen twice: both views must stay on the same side of the split.
    _skimage("motorcycle-left", "motorcycle_left.png", 350),
    _skimage("motorcycle-right", "motorcycle_right.png", 350),
    _skimage("camera", "camera.png", 150),
    _skimage("coins", "coins.png", 100),
    _sklearn("china", 550),
    _sklearn("flower", 550),
)
"""In the order of their `.cls` numbers. `camera` and `coins` are grey, and so are their JPEG files."""


class SampleSet(Record):
    """What `sample.json` says about the folder."""

    recipe: str
    """Digest of all that decides the pixels."""
    tars: dict[str, int]
    """Samples per source shard, by file name."""
    photographs: tuple[str, ...]
    """Names, in the order of their `.cls` numbers."""
    held_out: tuple[str, ...]
    """Names of the photographs that only the held-out source shards show."""
    sizes: dict[str, int] = {}
    """Bytes per source shard, known once it is written."""
    complete: bool = False


@dataclass(frozen=True)
class SampleSummary:
    """What `vqtok sample` found or made in `folder`."""

    folder: Path
    contents: SampleSet
    written: bool
    """False when the finished set was there already."""

    def __str__(self) -> str:
        held_out = sum(n for name, n in self.contents.tars.items() if name.startswith("heldout-"))
        training = sum(self.contents.tars.values()) - held_out
        state = "written" if self.written else "already there, nothing to do"
        return (
            f"{self.folder}: {training} training crops and {held_out} held-out crops"
            f" ({', '.join(self.contents.held_out)}) in {len(self.contents.tars)} source shards,"
            f" {sum(self.contents.sizes.values()) / 1e6:.1f} MB: {state}"
        )


@dataclass(frozen=True)
class Crop:
    """One sample before its pixels are cut."""

    key: str
    photograph: int
    """Index into PHOTOGRAPHS: the `.cls`."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels of the photograph."""
    side: int
    """Side of the finished crop in pixels."""
    mirrored: bool


def run(folder: Path) -> SampleSummary:
    """Make the sample set in `folder`, or find it finished there.

    The same package versions give byte-identical source shards on every run.
    Raises VqtokError when a photograph is not installed or the folder cannot take the set.
    """
    planned = _plan_tars()
    wanted = SampleSet(
        recipe=_recipe(),
        tars={name: len(crops) for name, crops in planned.items()},
        photographs=tuple(p.name for p in PHOTOGRAPHS),
        held_out=tuple(p.name for p in PHOTOGRAPHS if p.held_out),
    )
    try:
        found = _read_manifest(folder)
        if found is not None and _is_finished(folder, found, wanted.recipe):
            return SampleSummary(folder, found, written=False)
        return SampleSummary(folder, _write_set(folder, found, wanted, planned), written=True)
    except OSError as error:
        raise VqtokError(f"{folder}: the sample set cannot be written there: {error}") from error


def find_photograph(photograph: Photograph) -> Path:
    """The installed file of a photograph, found without importing its package (that takes seconds).

    Raises VqtokError naming what to install.
    """
    remedy = "install the photographs with: pip install 'vqtok[sample]'"
    spec = importlib.util.find_spec(photograph.package)
    if spec is None or not spec.submodule_search_locations:
        raise VqtokError(f"the package {photograph.package} is not installed; {remedy}")
    path = Path(spec.submodule_search_locations[0]) / photograph.path
    if not path.is_file():
        raise VqtokError(f"{path}: the photograph {photograph.name} is missing; {remedy}")
    return path


def _recipe() -> str:
    return digest_of(
        {
            "photographs": [p.model_dump() for p in PHOTOGRAPHS],
            "tars": [TRAINING_TARS, HELDOUT_TARS],
            "crops": [CROP_SIDES, MAX_SHRINK, JPEG_QUALITY, SEED],
        }
    )


def _read_manifest(folder: Path) -> SampleSet | None:
    """The folder's `sample.json`, of whatever state; None when there is none."""
    if folder.exists() and not folder.is_dir():
        raise VqtokError(f"{folder}: is a file; name a folder for the sample set")
    path = folder / MANIFEST
    try:
        return SampleSet.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise VqtokError(f"{path}: was not written by this command; name another folder") from error


def _is_finished(folder: Path, found: SampleSet, recipe: str) -> bool:
    if not found.complete or found.recipe != recipe:
        return False
    paths = {folder / name: size for name, size in found.sizes.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def _plan_tars() -> dict[str, list[Crop]]:
    """Which crops go into which source shard, by file name: mixed over the photographs, evenly long."""
    training: list[Crop] = []
    heldout: list[Crop] = []
    for index, photograph in enumerate(PHOTOGRAPHS):
        (heldout if photograph.held_out else training).extend(_plan_crops(index))
    mixer = random.Random(SEED)
    mixer.shuffle(training)
    mixer.shuffle(heldout)
    tars = {f"photos-{i:04d}.tar": training[i::TRAINING_TARS] for i in range(TRAINING_TARS)}
    return tars | {f"heldout-{i:04d}.tar": heldout[i::HELDOUT_TARS] for i in range(HELDOUT_TARS)}


def _plan_crops(index: int) -> Iterator[Crop]:
    photograph = PHOTOGRAPHS[index]
    with Image.open(find_photograph(photograph)) as header:
        width, height = header.size
    # A generator of its own, so that no photograph's crops depend on another's.
    draw = random.Random(f"{SEED}/{photograph.name}")
    for number in range(photograph.crops):
        side = draw.choice(CROP_SIDES)
        cut = min(round(side * draw.uniform(1, MAX_SHRINK)), width, height)
        left, top = draw.randint(0, width - cut), draw.randint(0, height - cut)
        box = (left, top, left + cut, top + cut)
        yield Crop(f"{photograph.name}-{number:04d}", index, box, side, mirrored=draw.random() < 0.5)


def _write_set(
    folder: Path, found: SampleSet | None, wanted: SampleSet, planned: dict[str, list[Crop]]
) -> SampleSet:
    """Write the source shards, each under a temporary name first, and the finished manifest last."""
    _clear(folder, found, wanted)
    files = LocalFiles(folder)
    # Said first, so that the leftovers of a killed run are known for ours and not somebody's data.
    files.put(MANIFEST, wanted.to_json())
    photographs = [_load(photograph) for photograph in PHOTOGRAPHS]
    sizes = {}
    for name, crops in planned.items():
        tar = _tar_bytes(photographs, crops)
        files.put(name, tar)
        sizes[name] = len(tar)
    finished = wanted.model_copy(update={"sizes": sizes, "complete": True})
    files.put(MANIFEST, finished.to_json())
    return finished


def _clear(folder: Path, found: SampleSet | None, wanted: SampleSet) -> None:
    """Remove what an earlier run left behind; refuse to replace a tar that no run announced."""
    announced = set(found.tars) if found else set()
    for name in wanted.tars:
        if name not in announced and (folder / name).exists():
            raise VqtokError(f"{folder / name}: was not written by this command; name another folder")
    for name in announced:
        (folder / name).unlink(missing_ok=True)
    for temporary in folder.glob(".tmp-*.tar.*"):
        temporary.unlink(missing_ok=True)


def _load(photograph: Photograph) -> Image.Image:
    path = find_photograph(photograph)
    try:
        with Image.open(path) as image:
            return image.convert("L" if image.mode == "L" else "RGB")
    except OSError as error:
        raise VqtokError(
            f"{path}: cannot be read ({error}); install scikit-image and scikit-learn again"
        ) from error


def _tar_bytes(photographs: list[Image.Image], crops: list[Crop]) -> bytes:
    """A whole source shard; the same bytes for the same crops, whoever writes it and when."""
    # Importing webdataset brings torch along, which a run that finds the set finished should not wait for.
    from webdataset import TarWriter

    buffer = io.BytesIO()
    with TarWriter(buffer, encoder=False, user="", group="", mode=0o644, mtime=0) as writer:
        for crop in crops:
            writer.write(_sample(photographs[crop.photograph], crop))
    return buffer.getvalue()


def _sample(photograph: Image.Image, crop: Crop) -> JSON:
    """The members of one sample by extension, as bytes."""
    image = photograph.resize((crop.side, crop.side), Image.Resampling.LANCZOS, box=crop.box)
    if crop.mirrored:
        image = ImageOps.mirror(image)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    about = {
        "photograph": PHOTOGRAPHS[crop.photograph].name,
        "box": crop.box,
        "size": [crop.side, crop.side],
        "mirrored": crop.mirrored,
    }
    return {
        "__key__": crop.key,
        "jpg": jpeg.getvalue(),
        "cls": str(crop.photograph).encode(),
        "json": json.dumps(about).encode(),
    }
