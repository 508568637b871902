"""`vqtok sample DIR`: a small data set of real photographs, as WebDataset source shards, without a download.

Each photograph gives crops of several sizes, some of them mirrored. A crop is one sample: the picture
(`.jpg`), the number of its photograph (`.cls`) and where it was cut (`.json`). Crops of one photograph
resemble each other, so whole photographs are held out.

    photos-0000.tar … photos-0007.tar      training
    heldout-0000.tar                       photographs that no crop in photos-* was cut from
    sample.json                            what the set holds; announced first, `complete` at the end
"""

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
from pipeline.jobs.sampling.photographs import PHOTOGRAPHS, open_photograph
from pipeline.records import JSON, Record, digest_of

MANIFEST = "sample.json"
TRAINING_TARS = 8
HELDOUT_TARS = 1
CROP_SIDES = (64, 80, 96, 128, 192, 256)
"""Sides of the square crops in pixels."""
MAX_SHRINK = 2.0
"""A crop is cut from a square up to this many times its side, then scaled down to it."""
JPEG_QUALITY = 90
SEED = 0


class SampleSet(Record):
    """What `sample.json` says about its folder."""

    recipe: str
    """Digest of all that decides the pixels."""
    samples: dict[str, int]
    """Samples per source shard, by file name."""
    bytes: dict[str, int]
    """Size of each source shard; empty until all are written."""
    photographs: tuple[str, ...]
    """Names, in the order of their `.cls` numbers."""
    held_out: tuple[str, ...]
    """Names of the photographs that only the held-out source shards show."""
    complete: bool


@dataclass(frozen=True)
class SampleSummary:
    """What `vqtok sample` found or made in `folder`."""

    folder: Path
    contents: SampleSet
    written: bool
    """False when the finished set was there already."""

    def __str__(self) -> str:
        held_out = sum(n for name, n in self.contents.samples.items() if name.startswith("heldout-"))
        training = sum(self.contents.samples.values()) - held_out
        return (
            f"{self.folder}: {training} training crops and {held_out} held-out crops"
            f" ({', '.join(self.contents.held_out)}) in {len(self.contents.samples)} source shards,"
            f" {sum(self.contents.bytes.values()) / 1e6:.1f} MB:"
            f" {'written' if self.written else 'already there, nothing to do'}"
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
    try:
        found = _read_manifest(folder)
        if found is not None and _is_finished(folder, found):
            return SampleSummary(folder, found, written=False)
        return SampleSummary(folder, _write_set(folder, found), written=True)
    except OSError as error:
        raise VqtokError(f"{folder}: the sample set cannot be written there: {error}") from error


def _recipe() -> str:
    photographs = [photograph.model_dump() for photograph in PHOTOGRAPHS]
    return digest_of([photographs, TRAINING_TARS, HELDOUT_TARS, CROP_SIDES, MAX_SHRINK, JPEG_QUALITY, SEED])


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


def _is_finished(folder: Path, found: SampleSet) -> bool:
    if not found.complete or found.recipe != _recipe():
        return False
    paths = {folder / name: size for name, size in found.bytes.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def _plan_set() -> dict[str, list[Crop]]:
    """Which crops go into which source shard, by file name: mixed over the photographs, evenly long."""
    training: list[Crop] = []
    held_out: list[Crop] = []
    for index, photograph in enumerate(PHOTOGRAPHS):
        (held_out if photograph.held_out else training).extend(_plan_crops(index))
    for crops in (training, held_out):
        random.Random(SEED).shuffle(crops)
    planned = {f"photos-{i:04d}.tar": training[i::TRAINING_TARS] for i in range(TRAINING_TARS)}
    return planned | {f"heldout-{i:04d}.tar": held_out[i::HELDOUT_TARS] for i in range(HELDOUT_TARS)}


def _plan_crops(index: int) -> Iterator[Crop]:
    photograph = PHOTOGRAPHS[index]
    with open_photograph(photograph) as image:
        width, height = image.size
    # A generator of its own, so that no photograph's crops depend on another's.
    draw = random.Random(f"{SEED}/{photograph.name}")
    for number in range(photograph.crops):
        side = draw.choice(CROP_SIDES)
        cut = min(round(side * draw.uniform(1, MAX_SHRINK)), width, height)
        left, top = draw.randint(0, width - cut), draw.randint(0, height - cut)
        box = (left, top, left + cut, top + cut)
        yield Crop(f"{photograph.name}-{number:04d}", index, box, side, mirrored=draw.random() < 0.5)


def _write_set(folder: Path, found: SampleSet | None) -> SampleSet:
    """Write the source shards, each under a temporary name first, and the finished manifest last."""
    planned = _plan_set()
    announced = SampleSet(
        recipe=_recipe(),
        samples={name: len(crops) for name, crops in planned.items()},
        bytes={},
        photographs=tuple(photograph.name for photograph in PHOTOGRAPHS),
        held_out=tuple(photograph.name for photograph in PHOTOGRAPHS if photograph.held_out),
        complete=False,
    )
    _clear(folder, found, announced)
    files = LocalFiles(folder)
    # Announced first, so that the next run knows the leftovers of a killed one for ours.
    files.put(MANIFEST, announced.to_json())
    photographs = [open_photograph(photograph) for photograph in PHOTOGRAPHS]
    sizes = {}
    for name, crops in planned.items():
        tar = _tar_bytes(photographs, crops)
        files.put(name, tar)
        sizes[name] = len(tar)
    finished = announced.model_copy(update={"bytes": sizes, "complete": True})
    files.put(MANIFEST, finished.to_json())
    return finished


def _clear(folder: Path, found: SampleSet | None, wanted: SampleSet) -> None:
    """Remove what an earlier run left behind; refuse to replace a tar that no run announced."""
    ours = found.samples if found else {}
    for name in wanted.samples:
        if name not in ours and (folder / name).exists():
            raise VqtokError(f"{folder / name}: was not written by this command; name another folder")
    for name in ours:
        (folder / name).unlink(missing_ok=True)
    for leftover in folder.glob(".tmp-*.tar.*"):
        leftover.unlink(missing_ok=True)


def _tar_bytes(photographs: list[Image.Image], crops: list[Crop]) -> bytes:
    """A whole source shard; the same bytes for the same crops, whoever writes it and when."""
    # webdataset brings torch along: seconds that a run which finds the set finished should not wait.
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
        "size": image.size,
        "mirrored": crop.mirrored,
    }
    return {
        "__key__": crop.key,
        "jpg": jpeg.getvalue(),
        "cls": str(crop.photograph).encode(),
        "json": json.dumps(about).encode(),
    }
