"""What is held out is not trained on, whatever its name."""

import os
from pathlib import Path

import pytest
from support import write_tar

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.jobs.training.shards import training_shards


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three source shards of one size, one of them to be held out."""
    for number, name in enumerate(("heldout", "train-0", "train-1")):
        write_tar(tmp_path / f"{name}.tar", {"a.png": bytes([number]) * 300_000})
    return tmp_path


def names(config: Config) -> list[str]:
    return sorted(shard.path for shard in training_shards(config))


def configuration(data: Path, shards: str = "*.tar", holdout: str = "heldout.tar") -> Config:
    return Config.model_validate(
        {
            "source": {"shards": str(data / shards)},
            "image": {"size": 4},
            "tokenizer": {"path": "unused"},
            "tokenize": {"store": "unused"},
            "train": {"holdout": str(data / holdout)},
        }
    )


def test_held_out_source_shards_are_left_out(data: Path) -> None:
    assert names(configuration(data)) == ["train-0.tar", "train-1.tar"]
    assert names(configuration(data, "train-*.tar")) == ["train-0.tar", "train-1.tar"]


def test_nothing_left_to_train_on(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.holdout: names every source shard"):
        training_shards(configuration(data, "heldout.tar"))


def test_missing_held_out_source_shards_are_named_as_such(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train\.holdout: .*gone"):
        training_shards(configuration(data, holdout="gone-*.tar"))


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("held", ["heldout.tar", "train-2.tar"])
def test_a_link_to_a_held_out_file_is_that_file(data: Path, link: type, held: str) -> None:
    link(data / "heldout.tar", data / "train-2.tar")
    assert names(configuration(data, holdout=held)) == ["train-0.tar", "train-1.tar"]


def test_a_folder_that_is_a_link_leads_to_the_same_files(data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(data)
    assert names(configuration(data, holdout="elsewhere/heldout.tar")) == ["train-0.tar", "train-1.tar"]


def test_a_copy_of_a_held_out_file_is_refused_by_name(data: Path) -> None:
    (data / "train-2.tar").write_bytes((data / "heldout.tar").read_bytes())
    with pytest.raises(ConfigError) as caught:
        training_shards(configuration(data))
    assert str(caught.value) == (
        f"train.holdout: {data}/heldout.tar is held out, and {data}/train-2.tar is a copy of it to train on; "
        "name the copy in source.exclude, or hold out another source shard"
    )


def test_files_that_differ_only_in_the_middle_are_two(data: Path) -> None:
    copy = bytearray((data / "heldout.tar").read_bytes())
    copy[len(copy) // 2] ^= 1
    (data / "train-2.tar").write_bytes(copy)
    assert "train-2.tar" in names(configuration(data))
