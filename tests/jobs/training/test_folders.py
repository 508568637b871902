"""Training on folders of images: which files it trained on stays known, and others are a change."""

import shutil
from pathlib import Path

import pytest
from accelerate import PartialState
from fixtures_store import good_samples, jpeg
from fixtures_training import TrainingJob

from pipeline.config import Config
from pipeline.errors import ConfigError, TokenizerError
from pipeline.jobs.training import job as train
from pipeline.jobs.training.shards import training_shards
from pipeline.source.folders.listings import Mode

pytest_plugins = ["fixtures_store", "fixtures_training"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Folders `train` and `heldout`."""
    for name, first in (("train", 0), ("heldout", 50)):
        (tmp_path / "source" / name).mkdir(parents=True)
        for key, members in good_samples(first, 10):
            (tmp_path / f"source/{name}/{key}.jpg").write_bytes(members["jpg"])
    return tmp_path / "source"


def test_its_files_are_listed_and_files_that_come_or_go_are_changes(source: Path, tmp_path: Path) -> None:
    job = TrainingJob(tmp_path / "job", source)
    job.folder.mkdir()
    job.write(f"{source}/train", holdout=f"{source}/heldout", steps=6)
    result = train.run(job.config()).result
    assert result.psnr is not None
    assert {path.parent.name for path in job.tokenizer.rglob("listings/*.json")} == {"listings"}
    assert len(list(job.tokenizer.rglob("listings/*.json"))) == 2
    assert not train.run(job.config()).trained

    job.write(f"{source}/train", holdout=f"{source}/heldout", steps=8)
    (source / "train/new.jpg").write_bytes(jpeg(99))
    with pytest.raises(TokenizerError, match=r"source\.shards\[train/#new\]: files of .* here, null there"):
        train.run(job.config())
    (source / "train/new.jpg").unlink()
    (source / "train/000003.jpg").rename(tmp_path / "kept.jpg")
    with pytest.raises(TokenizerError, match=r"source\.shards\[train/#000000\]: files of "):
        train.run(job.config())
    (tmp_path / "kept.jpg").rename(source / "train/000003.jpg")
    moved = shutil.move(source, tmp_path / "moved")
    job.source = moved
    job.write(f"{moved}/train", holdout=f"{moved}/heldout", steps=8)
    assert train.run(job.config()).trained
    (moved / "train/new.jpg").write_bytes(jpeg(99))
    job.write(f"{moved}/train", holdout=f"{moved}/heldout", steps=9)
    assert train.run(job.config(), allow_change=True).trained
    assert len(list(job.tokenizer.rglob("listings/*.json"))) == 3


def test_processes_that_see_their_own_gpu_alone_meet(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of srun --gpus-per-task=1: there is no GPU by the number of their local rank."""

    def barrier(state: PartialState) -> None:
        raise RuntimeError("CUDA error: invalid device ordinal")

    monkeypatch.setattr(PartialState, "wait_for_everyone", barrier)
    job = TrainingJob(tmp_path / "job", source)
    job.folder.mkdir()
    assert train.run(job.write(f"{source}/train", holdout=[], steps=3).config()).trained


def configuration(source: Path, shards: str, holdout: str) -> Config:
    return Config.model_validate(
        {
            "source": {"shards": f"{source}/{shards}"},
            "image": {"size": 16},
            "tokenizer": {"path": f"{source.parent}/tokenizer"},
            "tokenize": {"store": "unused"},
            "train": {"holdout": f"{source}/{holdout}"},
        }
    )


def test_a_held_out_folder_must_lie_beside_what_is_trained_on(source: Path) -> None:
    assert [shard.path for shard in training_shards(configuration(source, "train", "heldout"))] == ["train/#000000"]
    with pytest.raises(ConfigError, match=r"train\.holdout: .*heldout lies in .*source, so that"):
        training_shards(configuration(source, "", "heldout"))
    with pytest.raises(ConfigError, match=r"train\.holdout: names every source shard"):
        training_shards(configuration(source, "train", "train"))


def test_a_copy_of_a_held_out_folder_is_refused(source: Path) -> None:
    shutil.copytree(source / "heldout", source / "copy")
    with pytest.raises(ConfigError, match="is a copy of it to train on"):
        training_shards(configuration(source, "copy", "heldout"))
    (source / "copy/000050.jpg").write_bytes(b"1" * (source / "copy/000050.jpg").stat().st_size)
    assert training_shards(configuration(source, "copy", "heldout"))


def test_all_processes_of_a_training_take_the_files_that_were_listed(source: Path) -> None:
    config = configuration(source, "train", "heldout")
    listed = training_shards(config, Mode.KEEP)
    (source / "train/later.jpg").write_bytes(jpeg(1))
    assert training_shards(config, Mode.LISTED) == listed


def test_a_tokenizer_among_the_images_is_refused_before_it_hides_them(source: Path, tmp_path: Path) -> None:
    job = TrainingJob(tmp_path / "job", source)
    job.folder.mkdir()
    job.write(f"{source}/train", holdout=f"{source}/heldout", steps=6)
    with pytest.raises(ConfigError, match=r"tokenizer\.path: .*train holds images of the collection"):
        train.run(job.config(f"tokenizer.path={source}/train"))
    assert not (source / "train/train.json").exists()
    assert train.run(job.config(f"tokenizer.path={source}/train/runs/tokenizer")).trained
