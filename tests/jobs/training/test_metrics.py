"""metrics.jsonl of a training that goes on: lines of lost steps and torn ones are gone."""

import json
import re
from pathlib import Path

import pytest
from fixtures_training import TrainingJob, edit_birth

from pipeline.jobs.training.metrics import MetricsLog
from pipeline.records import JSON

pytest_plugins = ["fixtures_store", "fixtures_training"]


def lines_of(folder: Path) -> list[JSON]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


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


def test_metrics_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    lines = [{"step": step, "kind": kind} for step in (1, 2, 3) for kind in ("train", "held-out")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 4, "kin')
    log = MetricsLog(tmp_path, resumed_from=2)
    assert lines_of(tmp_path) == lines[:4]
    assert log.latest["held-out"] == {"step": 2, "kind": "held-out"}
    log.write("train", 3, {"loss": 1 / 3})
    assert lines_of(tmp_path)[4:] == [{"step": 3, "kind": "train", "loss": 0.333333}]
