"""What may change when a training goes on, what is refused, and what a damaged folder does."""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_store import good_samples, save_tiny_tokenizer, vqtok, write_shard
from fixtures_training import TrainingJob, edit_birth
from support import file_system, sampled

from pipeline.config import TrainConfig
from pipeline.errors import TokenizerError, TrainingDiverged
from pipeline.jobs.training import job as train
from pipeline.jobs.training.birth import find_result
from pipeline.jobs.training.checkpoint_names import checkpointed_steps
from pipeline.jobs.training.disk import explaining_a_full_disk, in_words
from pipeline.jobs.training.metrics import MetricsLog
from pipeline.models.folder.contents import has_tokenizer
from pipeline.source.shards import identity

pytest_plugins = ["fixtures_store", "fixtures_training"]

ALLOW = "--allow-change goes on from step 18 and writes the change into train.json"


# --- what may change --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    sampled(
        *("train.workers=3", "train.steps=30", "train.steps=18", "train.learning_rate=0.5"),
        *("train.checkpoint_every=5", "train.log_every=1", "train.evaluate_every=1"),
        *("source.label=null", "source.keep=txt", "source.allow_unterminated=true"),
    ),
)
def test_what_changes_nothing_about_the_past_may_change(override: str, halted: TrainingJob) -> None:
    assert find_result(halted.config(override)) is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.batch_size=8", "train.batch_size: 8 here, 4 there"),
        ("train.gradient_accumulation=2", "train.gradient_accumulation: 2 here, 1 there"),
        ("train.warmup_steps=3", "train.warmup_steps: 3 here, 2 there"),
        ("train.seed=1", "train.seed: 1 here, 0 there"),
        ("train.precision=bf16", "train.precision: bf16 here, fp32 there"),
        ("train.shuffle_buffer=7", "train.shuffle_buffer: 7 here, 6 there"),
        ("train.model.beta=1", "train.model.beta: 1.0 here, 0.25 there"),
        ("train.model.revive_after=null", "train.model.revive_after: null here, 1 there"),
        ("image.size=[16,32]", "image.size: [16, 32] here, [16, 16] there"),
        ("image.interpolation=bilinear", "image.interpolation: bilinear here, bicubic there"),
        ("source.image=jpg", "source.image: jpg here, null there"),
        ("source.exclude=train-1.tar", "source.shards[train-1.tar]: null here, "),
        ("train.holdout=[]", "train.holdout[heldout.tar]: null here, "),
    ],
)
def test_what_matters_is_refused_by_name_unless_it_is_allowed(override: str, line: str, halted: TrainingJob) -> None:
    with pytest.raises(TokenizerError) as caught:
        find_result(halted.config(override))
    message = str(caught.value)
    assert f"\n  {line}" in message
    assert message.count("\n") == 2
    assert "set another tokenizer.path, or delete the folder" in message
    assert ALLOW in message
    assert find_result(halted.config(override), allow_change=True) is None


def test_all_that_differs_is_named_at_once(halted: TrainingJob) -> None:
    with pytest.raises(TokenizerError) as caught:
        find_result(halted.config("train.seed=1", "train.batch_size=8", "train.steps=99"))
    assert "train.seed" in str(caught.value)
    assert "train.batch_size" in str(caught.value)
    assert "train.steps" not in str(caught.value)


@pytest.mark.parametrize("allowed", [False, True])
def test_fewer_steps_than_are_done_are_refused(allowed: bool, halted: TrainingJob) -> None:
    with pytest.raises(TokenizerError, match=r"train\.steps: 17 here, and 18 are done; ask for at least as many"):
        find_result(halted.config("train.steps=17"), allow_change=allowed)


def test_the_same_files_elsewhere_are_the_same_and_others_are_not(halted: TrainingJob, tmp_path: Path) -> None:
    def elsewhere(name: str, change: Callable[[Path], object] = lambda folder: None) -> TrainingJob:
        halted.source = shutil.copytree(original, tmp_path / name)  # with the time of now, as `cp` does
        for path in halted.source.iterdir():
            path.touch()
        change(halted.source)
        return halted.write(holdout=f"{halted.source}/heldout.tar")

    def one_byte(folder: Path) -> None:
        data = bytearray((folder / "train-1.tar").read_bytes())
        data[700] ^= 1
        (folder / "train-1.tar").write_bytes(data)

    original = halted.source
    assert find_result(elsewhere("same").config()) is None
    changes: dict[str, tuple[Callable[[Path], object], str]] = {
        "added": (
            lambda folder: write_shard(folder / "train-2.tar", good_samples(90, 2)),
            "train-2.tar]: 10,240 bytes",
        ),
        "removed": (lambda folder: (folder / "train-1.tar").unlink(), "train-1.tar]: null here, "),
        "edited": (one_byte, "train-1.tar]: "),
        "renamed": (lambda folder: (folder / "train-1.tar").rename(folder / "train-9.tar"), "train-9.tar]: "),
    }
    for name, (change, line) in changes.items():
        job = elsewhere(name, change)
        with pytest.raises(TokenizerError, match=re.escape(f"source.shards[{line}")):
            find_result(job.config())
        assert find_result(job.config(), allow_change=True) is None


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


# --- folders of the version before ------------------------------------------------------------------------------


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


# --- vqtok run ------------------------------------------------------------------------------------------------


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


def test_only_a_folder_with_the_name_of_a_step_is_a_checkpoint(tmp_path: Path) -> None:
    for name in ("step-000012", "step-000400.bak", "step-", "step-12x", "step-13", "step-0000014", "step-1000000"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints/step-000500").touch()
    assert checkpointed_steps(tmp_path) == [12, 1_000_000]


# --- damage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    sampled(
        ("optimizer.bin", lambda data: data[:500], r"optimizer\.bin has 500 bytes, [\d,]+ were written"),
        ("model.safetensors", lambda data: data[:-1] + b"!", r"model\.safetensors holds other bytes than were written"),
        ("random_states_0.pkl", None, r"random_states_0\.pkl: No such file or directory"),
        ("contents.json", lambda data: bytes(len(data)), r"contents\.json cannot be read"),
    ),
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    name: str, damage: Any, reason: str, finished_training: TrainingJob, trained: TrainingJob
) -> None:
    (finished_training.tokenizer / "config.json").unlink()
    path = finished_training.tokenizer / "checkpoints/step-000024" / name
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    done = finished_training.run()
    assert done.status == 0, done.err
    assert len(re.findall(rf"step-000024: damaged \({reason}\); goes on from step 18\n", done.err)) == 1
    assert "resumed from the checkpoint of step 18" in done.err
    assert finished_training.checkpoints == [18, 24]
    assert finished_training.weights == trained.weights
    assert not train.run(finished_training.config()).trained


def test_an_older_checkpoint_that_cannot_be_loaded_falls_back_too(
    finished_training: TrainingJob, trained: TrainingJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no record of its files, so that only loading shows the damage."""
    (finished_training.tokenizer / "config.json").unlink()
    newest = finished_training.tokenizer / "checkpoints/step-000024"
    (newest / "contents.json").unlink()
    (newest / "optimizer.bin").write_bytes(b"torn")
    assert train.run(finished_training.config()).trained
    assert len(re.findall(r"step-000024: damaged \(.*\); goes on from step 18\n", capsys.readouterr().err)) == 1
    assert finished_training.weights == trained.weights


def test_no_whole_checkpoint_is_not_a_new_beginning(halted: TrainingJob) -> None:
    for path in halted.tokenizer.glob("checkpoints/*/optimizer.bin"):
        path.write_bytes(b"")
    with pytest.raises(TokenizerError, match="and so is every other checkpoint; put one back from a copy, or delete"):
        train.run(halted.config())
    assert halted.checkpoints == [18]


@pytest.mark.parametrize("tail", [bytes(4096), b'{"step": 18, "ki', b"\xff\xfe\n", b'[1]\n{"step": 18}\n'])
def test_a_torn_tail_of_the_metrics_is_cut_off(tail: bytes, tmp_path: Path) -> None:
    lines = b"".join(b'{"step": %d, "kind": "train"}\n' % step for step in (1, 2))
    (tmp_path / "metrics.jsonl").write_bytes(lines + tail)
    log = MetricsLog(tmp_path, resumed_from=2)
    assert log.damaged >= 1
    assert (tmp_path / "metrics.jsonl").read_bytes() == lines


@pytest.mark.slow
def test_figures_lost_in_a_power_cut_are_taken_again(finished_training: TrainingJob, trained: TrainingJob) -> None:
    edit_birth(finished_training, lambda birth: birth.update(result=None))
    metrics = finished_training.tokenizer / "metrics.jsonl"
    metrics.write_bytes(bytes(len(metrics.read_bytes())))
    done = finished_training.run()
    assert done.status == 0, done.err
    assert len(re.findall(r"metrics\.jsonl: cut off 1 damaged line", done.err)) == 1
    assert finished_training.born["result"] == trained.born["result"]
    assert f"held-out PSNR {trained.born['result']['psnr']:.2f} dB" in done.out


# --- full disks -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes of its own."""
    with file_system(tmp_path / "disk", 2) as folder:
        yield folder


def fill(disk: Path, but: int) -> None:
    """Take all of a disk but so many bytes."""
    with (disk / "ballast").open("wb") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        file.write(bytes(max(0, free - but)))


@pytest.mark.parametrize(
    ("free", "message", "checkpoints"),
    sampled(
        (76 << 10, "tokenizer: cannot be written: No space left on device; ", [18, 24]),
        (0, "tokenizer: cannot be written: No space left on device; ", [18]),
        # Which file does not fit, and so what its library calls it, depends on sizes that versions change.
        (8 << 10, r"(cannot be written: no space is left \(\w+Error: |No space left on device; )", [18]),
        (24 << 10, r"step-000024: the checkpoint cannot be written: no space is left \(\w+Error: ", [18]),
    ),
)
def test_a_full_disk_ends_in_one_message_and_keeps_the_checkpoint_before(
    free: int, message: str, checkpoints: list[int], halted: TrainingJob, trained: TrainingJob, small_disk: Path
) -> None:
    shutil.copytree(halted.tokenizer, small_disk / "job/tokenizer")
    job = TrainingJob(small_disk / "job", trained.source).write()
    config = job.config()
    fill(small_disk, free)
    done = vqtok("train", "--config", job.file, folder=small_disk.parent / "output").wait()
    assert done.status == 1, done.err
    messages = re.findall("^vqtok: .*", done.err, re.MULTILINE)
    assert len(messages) == 1, done.err
    assert re.search(message, messages[0]), messages
    assert re.search(r"[\d.]+ [KM]iB are free there, about [\d.]+ KiB are needed; make room", messages[0]), messages
    assert "Traceback" not in done.err
    assert list(job.tokenizer.rglob(".tmp-*")) == []
    assert job.checkpoints == checkpoints
    (small_disk / "ballast").unlink()
    train.run(config)
    assert job.weights == trained.weights


def test_a_quota_is_a_full_disk_too() -> None:
    with (
        pytest.raises(
            TokenizerError, match=r"^/a/b: cannot be written: .*; .* are free there, about 1\.0 GiB are needed"
        ),
        explaining_a_full_disk(Path("/a"), lambda: 1 << 30),
    ):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/a/b")
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")
    except RuntimeError as error:
        assert in_words(error) == "No space left on device"
