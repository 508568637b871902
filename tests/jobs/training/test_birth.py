"""What `train.json` says of a folder: what is refused, what goes on, and what is written down."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
from fixtures_store import good_samples, save_tiny_tokenizer, write_shard
from fixtures_training import TrainingJob

from pipeline.config import TrainConfig
from pipeline.errors import TokenizerError, TrainingDiverged
from pipeline.jobs.training import job as train
from pipeline.jobs.training.birth import find_result
from pipeline.models.folder.contents import has_tokenizer
from pipeline.source.shards import identity

pytest_plugins = ["fixtures_store", "fixtures_training"]


@pytest.mark.parametrize("allowed", [False, True])
def test_fewer_steps_than_are_done_are_refused(allowed: bool, halted: TrainingJob) -> None:
    with pytest.raises(TokenizerError, match=r"train\.steps: 17 here, and 18 are done; ask for at least as many"):
        find_result(halted.config("train.steps=17"), allow_change=allowed)


@pytest.mark.slow
def test_more_steps_at_another_rate_go_on_from_the_last_checkpoint(finished_training: TrainingJob) -> None:
    finished_training.write(steps=36, learning_rate=0.002, checkpoint_every=5, log_every=1)
    done = finished_training.run()
    assert done.status == 0, done.err
    assert "resumed from the checkpoint of step 24" in done.err
    assert "trained; 36 steps" in done.out
    # Warm-up of 2 steps, then a half cosine over the other 34.
    rates = {line["step"]: line["learning_rate"] for line in finished_training.lines("train")}
    for step in (25, 30, 36):
        assert rates[step] == pytest.approx(0.001 * (1 + math.cos(math.pi * (step - 1 - 2) / 34)), rel=1e-4)
    born = finished_training.born
    assert born["history"] == [
        {"step": 24, "field": "train.learning_rate", "from": 0.01, "to": 0.002},
        {"step": 24, "field": "train.steps", "from": 24, "to": 36},
    ]
    assert born["result"]["steps"] == 36
    assert finished_training.checkpoints == [35, 36]
    assert not train.run(finished_training.config()).trained


def test_a_longer_training_that_diverges_leaves_nothing_that_looks_finished(
    finished_training: TrainingJob, trained: TrainingJob
) -> None:
    stray = finished_training.tokenizer / "checkpoints/step-000400.bak"
    stray.mkdir()
    with pytest.raises(TrainingDiverged, match=r"no tokenizer was saved.*the checkpoint before it is .*step-000024$"):
        train.run(finished_training.config("train.steps=100", "train.learning_rate=30"))
    assert not has_tokenizer(finished_training.tokenizer)
    assert finished_training.born["result"] is None
    # Back to what it was.
    assert train.run(finished_training.config()).trained
    assert finished_training.weights == trained.weights
    assert stray.exists()


def test_an_allowed_change_goes_on_and_is_written_down(halted: TrainingJob) -> None:
    halted.write(batch_size=6)
    refused = halted.run()
    assert (refused.status, refused.out) == (1, "")
    assert "train.batch_size: 6 here, 4 there" in refused.err
    assert halted.born["history"] == []
    done = halted.run("--allow-change")
    assert done.status == 0, done.err
    assert halted.born["history"] == [{"step": 18, "field": "train.batch_size", "from": 4, "to": 6}]
    assert halted.run().status == 0  # it is the folder's configuration now


def test_another_model_does_not_fit_even_if_allowed_and_changes_nothing(halted: TrainingJob) -> None:
    before = halted.born
    with pytest.raises(TokenizerError, match=r"step-000018: the checkpoint cannot be loaded .*train\.model"):
        train.run(halted.config("train.model.hidden_dim=16"), allow_change=True)
    assert halted.born == before


def test_a_finished_tokenizer_is_not_trained_anew_without_its_checkpoints(finished_training: TrainingJob) -> None:
    shutil.rmtree(finished_training.tokenizer / "checkpoints")
    assert find_result(finished_training.config()) is not None
    with pytest.raises(TokenizerError, match="a finished tokenizer and no checkpoint to go on from"):
        find_result(finished_training.config("train.steps=30"), allow_change=True)


@pytest.fixture
def older(halted: TrainingJob) -> TrainingJob:
    """The same folder as the first version left it: no digests, no files by name, no keys that decide no weights."""
    for path in halted.tokenizer.glob("checkpoints/*/*.json"):
        path.unlink()
    free = {
        "source": {"base", "label", "keep", "allow_unterminated", "allow_pipe"},
        "train": {"log_every", "evaluate_every"},
    }
    tree = halted.config().model_dump(mode="json", include={"source", "image", "train"}, exclude=free)
    (halted.tokenizer / "train.json").write_text(json.dumps({"configuration": tree, "result": None}))
    return halted


def test_a_folder_of_the_version_before_goes_on(older: TrainingJob, trained: TrainingJob) -> None:
    assert older.run().status == 0
    assert older.born["sources"] == trained.born["sources"]
    assert older.born["history"] == []
    assert older.born["result"]["steps"] == 24


def test_patterns_count_where_no_files_were_written_down(older: TrainingJob) -> None:
    with pytest.raises(TokenizerError, match=r"\n  source\.shards: \[.*elsewhere.*\] here, \[.*train-\*\.tar"):
        find_result(older.config("source.shards=elsewhere/*.tar"))


def test_run_and_train_refuse_a_changed_section_with_the_same_lines(finished_training: TrainingJob) -> None:
    finished_training.write(learning_rate=0.5, seed=3)
    done = [finished_training.start(command).wait() for command in ("train", "run")]
    assert [(one.status, one.out) for one in done] == [(1, "")] * 2
    assert done[0].err == done[1].err
    for line in ("train.learning_rate: 0.5 here, 0.01 there", "train.seed: 3 here, 0 there", "`vqtok tokenize`"):
        assert line in done[0].err
    assert "more train.steps go on with another train.learning_rate" in done[0].err


def test_run_uses_what_is_there_where_nothing_is_to_be_compared(
    finished_training: TrainingJob, untrained: TrainingJob, tmp_path: Path
) -> None:
    born = finished_training.born
    silent = finished_training.config().model_copy(update={"train": TrainConfig()})
    assert train.ensure(silent) is None
    with pytest.raises(TokenizerError, match=r"train\.batch_size: 64 here, 4 there"):
        train.run(silent)

    # More source shards to tokenize are no other training, once it is finished.
    finished_training.source = shutil.copytree(finished_training.source, tmp_path / "grown")
    write_shard(finished_training.source / "train-2.tar", good_samples(90, 2))
    summary = train.ensure(finished_training.write().config())
    assert summary is not None
    assert not summary.trained
    assert finished_training.born == born
    with pytest.raises(TokenizerError, match=re.escape("source.shards[train-2.tar]: 10,240 bytes")):
        train.run(finished_training.config())


def test_run_with_an_allowed_change_notes_it_and_not_what_it_is_going_to_tokenize(
    finished_training: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    born = finished_training.born
    finished_training.source = shutil.copytree(finished_training.source, tmp_path / "other")
    for name in ("train-2.tar", "train-0.tar"):
        write_shard(finished_training.source / name, good_samples(90, 2))
    read: list[str] = []
    monkeypatch.setattr(identity, "head_digest", lambda shard: read.append(shard.path) or "")
    job = finished_training.write(seed=3, image={"interpolation": "bilinear"})
    summary = train.ensure(job.config(), allow_change=True)
    assert summary is not None
    assert not summary.trained
    assert read == []  # `tokenize` will look at them
    change = {"step": 24, "field": "train.seed", "from": 0, "to": 3}
    assert finished_training.born == born | {
        "configuration": born["configuration"]
        | {"train": born["configuration"]["train"] | {"seed": 3, "holdout": [f"{job.source}/heldout.tar"]}},
        "history": [change],
    }
    assert train.ensure(job.config()) is not None
    with pytest.raises(TokenizerError, match=re.escape("source.shards[train-2.tar]: ")):
        train.run(job.config())


def test_run_uses_a_folder_that_somebody_saved_and_train_refuses_it(untrained: TrainingJob) -> None:
    save_tiny_tokenizer(untrained.tokenizer)
    assert train.ensure(untrained.config()) is None
    with pytest.raises(TokenizerError, match="holds a tokenizer that `vqtok train` did not make"):
        train.run(untrained.config())
