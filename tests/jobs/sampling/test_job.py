"""`vqtok sample`: real photographs, the same bytes every time, nothing of somebody else's overwritten."""

import io
import json
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fixtures_store import Child, Halt
from PIL import Image
from support import ROOT

from pipeline.config import load_config
from pipeline.errors import VqtokError
from pipeline.jobs.sampling import job as sample
from pipeline.jobs.sampling.photographs import PHOTOGRAPHS, open_photograph

SHIPPED = ROOT / "configs" / "sample.yaml"
RUN = """
import sys
from pathlib import Path
from pipeline.jobs.sampling import job as sample
sample.PHOTOGRAPHS = tuple(photo.model_copy(update={"crops": photo.crops // 10}) for photo in sample.PHOTOGRAPHS)
sample.run(Path(sys.argv[1]))
"""


PARTS = 10
"""Of how many crops the short run cuts one."""


def run_with_few_crops(folder: Path) -> None:
    cut_few()
    sample.run(folder)


def cut_few() -> None:
    """From now on, in this process."""
    few = tuple(photo.model_copy(update={"crops": photo.crops // PARTS}) for photo in PHOTOGRAPHS)
    sample.PHOTOGRAPHS = few  # type: ignore[misc]


@pytest.fixture(scope="module", autouse=True)
def few_crops() -> Iterator[None]:
    """For all tests here but that of the whole set."""
    cut_few()
    yield
    sample.PHOTOGRAPHS = PHOTOGRAPHS  # type: ignore[misc]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> sample.SampleSummary:
    return sample.run(tmp_path_factory.mktemp("sample") / "set")


def samples_of(tar: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Samples in order, grouped by neighbouring members."""
    key, members = "", {}
    with tarfile.open(tar) as archive:
        for member in archive:
            stem, _, extension = member.name.partition(".")
            if stem != key and members:
                yield key, members
                members = {}
            file = archive.extractfile(member)
            assert file is not None
            key, members[extension] = stem, file.read()
    yield key, members


def test_every_sample_is_a_crop_of_the_photograph_it_names(made: sample.SampleSummary) -> None:
    keys: list[str] = []
    sides: set[int] = set()
    originals = [open_photograph(photograph) for photograph in PHOTOGRAPHS]
    for tar, count in made.contents.samples.items():
        samples = list(samples_of(made.folder / tar))
        assert len(samples) == count
        for position, (key, members) in enumerate(samples):
            keys.append(key)
            assert list(members) == ["cls", "jpg", "json"]
            about, number = json.loads(members["json"]), int(members["cls"])
            photograph = PHOTOGRAPHS[number]
            assert about["photograph"] == photograph.name
            assert photograph.held_out == tar.startswith("heldout-")
            image = Image.open(io.BytesIO(members["jpg"]))
            assert list(image.size) == about["size"]
            sides.add(image.size[0])
            if position % 20 == 0:  # comparing pixels takes time
                cut = originals[number].crop(about["box"]).resize((16, 16), Image.Resampling.BOX)
                if about["mirrored"]:
                    cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                small = image.resize((16, 16), Image.Resampling.BOX)
                assert np.abs(np.asarray(small, float) - np.asarray(cut, float)).mean() < 8, key
    assert len(keys) == len(set(keys)) == 3520 // PARTS
    assert sides == set(sample.CROP_SIDES)


def test_the_set_is_small_and_says_what_it_holds(made: sample.SampleSummary) -> None:
    assert made.written
    tars = sorted(path for path in made.folder.iterdir() if path.suffix == ".tar")
    assert [path.name for path in tars] == sorted(made.contents.samples)
    assert {path.name: path.stat().st_size for path in tars} == made.contents.bytes
    assert "320 training crops and 32 held-out crops (chelsea, coffee)" in str(made)


@pytest.mark.slow
def test_the_whole_set_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "PHOTOGRAPHS", PHOTOGRAPHS)
    whole = sample.run(tmp_path)
    assert sum(whole.contents.bytes.values()) < 40e6
    assert "3200 training crops and 320 held-out crops (chelsea, coffee)" in str(whole)


def test_a_second_run_writes_nothing_and_needs_neither_torch_nor_the_packages(
    made: sample.SampleSummary,
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    check = "print([m for m in ('torch', 'webdataset', 'skimage', 'sklearn') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", RUN + check, str(made.folder)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
    assert not sample.run(made.folder).written
    assert {path.name: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before


def test_a_killed_run_is_replaced_by_the_same_bytes(made: sample.SampleSummary, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    halt = Halt("open", "photos-0002.tar")
    assert Child(run_with_few_crops, folder, folder=tmp_path / "output", halt=halt).wait().status == -signal.SIGKILL
    assert (folder / "photos-0001.tar").exists()
    assert not (folder / "photos-0003.tar").exists()
    (folder / ".tmp-photos-0002.tar.00000000").write_bytes(b"half a tar")
    (folder / "photos-0000.tar").write_bytes(b"")
    assert sample.run(folder).written
    expected = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected


def test_a_damaged_set_is_not_taken_for_finished(made: sample.SampleSummary, tmp_path: Path) -> None:
    for name in ("sample.json", *made.contents.samples):
        (tmp_path / name).hardlink_to(made.folder / name)
    assert sample._is_finished(tmp_path, made.contents)
    (tmp_path / "photos-0003.tar").unlink()
    assert not sample._is_finished(tmp_path, made.contents)


def test_a_tar_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "photos-0000.tar"
    mine.write_bytes(b"precious")
    with pytest.raises(VqtokError, match=r"photos-0000\.tar: was not written by this command; name another"):
        sample.run(tmp_path)
    assert mine.read_bytes() == b"precious"
    (tmp_path / "sample.json").write_text('{"mine": true}')
    with pytest.raises(VqtokError, match=r"sample\.json: was not written by this command"):
        sample.run(tmp_path)


def test_a_target_that_cannot_hold_the_set(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(VqtokError, match="is a file; name a folder"):
        sample.run(file)
    with pytest.raises(VqtokError, match="cannot be written there"):
        sample.run(file / "below")


def test_the_shipped_configuration_fits_the_set(made: sample.SampleSummary) -> None:
    config = load_config(SHIPPED)
    for patterns, prefix in ((config.source.shards, "photos-"), (config.train.holdout, "heldout-")):
        (pattern,) = (Path(pattern) for pattern in patterns)
        assert pattern.parent == Path("data/sample")
        matched = {path.name for path in made.folder.glob(pattern.name)}
        assert matched == {name for name in made.contents.samples if name.startswith(prefix)}


def test_the_shipped_configuration_names_every_key_and_its_default(tmp_path: Path) -> None:
    shown = dict(remarks(SHIPPED.read_text()))
    for section in ("source", "tokenizer", "tokenize"):  # no configuration is written down with these
        assert shown.pop(f"{section}.storage", None) is not None
    required = {key: "x" for key, remark in shown.items() if remark == "required"} | {"image.size": 64}
    smallest = tmp_path / SHIPPED.name  # the places of a run follow from the name
    smallest.write_text(yaml.safe_dump(nested(required)))
    defaults = flat(load_config(smallest).model_dump(mode="json"))
    shipped = flat(load_config(SHIPPED).model_dump(mode="json"))
    assert shown.keys() == defaults.keys()
    for key, remark in shown.items():
        if remark == "required":
            continue
        default = yaml.safe_load(remark.removeprefix("default: ")) if remark else shipped[key]
        assert default == defaults[key], f"{key}: the remark is {remark!r}"
        assert bool(remark) == (shipped[key] != defaults[key]), key


def remarks(text: str) -> Iterator[tuple[str, str]]:
    """Each dotted key that has a value, and what stands in the comment behind it."""
    path: list[str] = []
    for line in text.splitlines():
        match = re.fullmatch(r"( *)(\w+):(?: +([^#]*?))?(?: +# (.*))?", line)
        if match is None:
            assert not line.strip() or line.lstrip().startswith("#"), line
            continue
        indent, key, value, remark = match.groups()
        path = [*path[: len(indent) // 2], key]
        if value:
            yield ".".join(path), remark or ""


def flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Leaves by dotted key."""
    leaves = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return leaves


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    """The tree of leaves that are one section deep."""
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return tree
