"""Precisions that a processor has no instructions for."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from fixtures_store import CPU as WITHOUT_GPU
from fixtures_store import Child, Job, make_job, vqtok
from torch import Tensor

from pipeline.cli import main
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.jobs.work import precision
from pipeline.jobs.work.precision import bf16_would_help, refuse_slow_precision, refuse_slow_training
from pipeline.jobs.work.siblings import new_siblings
from pipeline.models.layouts.scales import Scales
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.registry import load_tokenizer

pytest_plugins = ["fixtures_store"]

CPU = torch.device("cpu")


class _Again(NetworkTokenizer):
    """Encodes several times: so many times slower, whatever the processor."""

    times = 4

    def encode(self, img_B3HW: Tensor) -> list[Tensor]:
        for _ in range(self.times - 1):
            super().encode(img_B3HW)
        return super().encode(img_B3HW)


def tokenizer(config: Config, times: int) -> NetworkTokenizer:
    found = load_tokenizer(config.tokenizer.path, config.tokenize.layout)
    assert isinstance(found, NetworkTokenizer)
    slow = _Again(found.model, found.layout, found.normalization, {})
    slow.times = times
    return slow


def test_only_what_is_clearly_slower_is_refused_with_both_figures(job: Job) -> None:
    config = job.config("tokenize.precision=bf16", "image.size=64")
    with pytest.raises(ConfigError) as caught:
        refuse_slow_precision(config, tokenizer(config, 4), CPU)
    assert "tokenize.precision: bf16 is " in str(caught.value)
    assert " ms of a core for an image of 64 x 64 pixels; set tokenize.precision=fp32, or accept" in str(caught.value)
    refuse_slow_precision(config, tokenizer(config, 1), CPU)
    refuse_slow_precision(job.config("image.size=64"), tokenizer(config, 4), CPU)  # float32 is what it is
    refuse_slow_precision(config, tokenizer(config, 4), torch.device("cuda"))


class _MoreWork(torch.autograd.Function):
    """Much more work under autocast than without."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            for _ in range(100):
                torch.rand(200, 200).double() @ torch.rand(200, 200).double()
        return values.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _SlowInBf16(SimpleVQVAE):
    def forward(self, img_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(_MoreWork.apply(img_B3HW))


@dataclass
class OnCpu:
    """What is asked of an Accelerator, which would take a GPU where there is one."""

    device: torch.device = CPU
    is_main_process: bool = True


def test_training_is_measured_too(job: Job) -> None:
    slow, accelerator = _SlowInBf16(hidden_dim=8), cast("Accelerator", OnCpu())
    weights = {name: value.clone() for name, value in slow.state_dict().items()}
    with pytest.raises(ConfigError, match=r"train\.precision: bf16 is .* ms of a core .* set train\.precision=fp32"):
        refuse_slow_training(job.config("train.precision=bf16"), slow, accelerator)
    refuse_slow_training(job.config(), slow, accelerator)
    assert all(torch.equal(value, weights[name]) for name, value in slow.state_dict().items())
    assert all(parameter.grad is None for parameter in slow.parameters())


def test_processes_that_start_together_measure_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job.config("tokenize.precision=bf16", "image.size=64")
    measured: list[int] = []
    monkeypatch.setattr(precision, "_milliseconds_per_image", lambda *_: measured.append(1) or (3.0, 1.0))
    with new_siblings() as siblings:
        for name, value in siblings.environment.items():
            monkeypatch.setenv(name, value)
        for _ in range(3):
            with pytest.raises(ConfigError, match=r"3\.0 times slower"):
                refuse_slow_precision(config, tokenizer(config, 1), CPU)
    assert measured == [1]


def verify_slowly(*arguments: str) -> None:
    """`vqtok verify` on a processor that is slow in anything but float32."""
    precision._milliseconds_per_image = lambda *_: (3.0, 1.0)  # type: ignore[assignment]
    sys.argv = ["vqtok", "verify", *arguments]
    main()


def test_verify_refuses_before_it_reads_anything(finished: Job, tmp_path: Path) -> None:
    arguments = ["--config", str(finished.file), "--set", "tokenize.precision=bf16", "--rate", "0.01"]
    done = Child(verify_slowly, *arguments, folder=tmp_path, environment=WITHOUT_GPU).wait()
    assert (done.status, done.out) == (2, "")
    assert re.fullmatch(r"vqtok: tokenize\.precision: bf16 is 3\.0 times slower .* with --allow-slow\n", done.err)
    allowed = Child(verify_slowly, *arguments, "--allow-slow", folder=tmp_path, environment=WITHOUT_GPU).wait()
    assert (allowed.status, allowed.err) == (0, "")
    assert "rows encoded again" in allowed.out


@pytest.mark.parametrize("has", [True, False])
def test_the_hint_is_for_processors_that_have_it(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has)
    assert bf16_would_help("fp32", CPU) is has
    assert not bf16_would_help("bf16", CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image.size": 30}, "image.size: the tokenizer in .* cannot take it: an image of 30 x 30 pixels"),
        ({"tokenize.precision": "tf32"}, "tokenize.precision: tf32 is for CUDA"),
        ({"tokenize.store": "/proc/none"}, "tokenize.store: /proc/none cannot be written: "),
        ({"tokenize.store": f"{os.devnull}/x"}, "tokenize.store: /dev/null/x cannot be a store: /dev/null is a file"),
        ({"tokenize.store": "x" * 300}, "tokenize.store: x+ cannot be a store: file name too long"),
    ],
)
def test_what_cannot_be_used_here_is_a_bad_configuration(
    job: Job, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    changed = make_job(tmp_path / "changed", job.source, job.tokenizer, change)
    done = vqtok("tokenize", "--no-progress", "--config", changed.file, folder=tmp_path, environment=WITHOUT_GPU).wait()
    assert (done.status, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert re.match(f"vqtok: {message}", done.err), done.err
    assert not changed.store.exists()


@pytest.mark.parametrize(("patch_nums", "size"), [((1, 2, 4), (64, 64)), ((1, 2, 6), (96, 96))])
def test_it_measures_with_a_size_that_the_model_takes(patch_nums: tuple[int, ...], size: tuple[int, int]) -> None:
    """Scales end in one grid, and so take images of one size."""
    take = Scales(patch_nums).block_lengths
    assert precision._probe_size(size, 16, lambda size: take((size[0] // 16, size[1] // 16))) == size
    assert precision._probe_size((96, 96), 16, lambda size: None) == (64, 64)
