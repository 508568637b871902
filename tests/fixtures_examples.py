"""Runs of the training scripts of scripts/examples, small, in processes of their own; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import json
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_store import Child, Done, Halt, Job, make_job, store_of_rows
from support import ROOT

from pipeline.config import ImageConfig, ModelConfig
from pipeline.jobs.training.network import network_to_train
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.tokenizers.vqtok import save_tokenizer
from pipeline.records import Normalization
from pipeline.store import TokenStore

SCRIPTS = ROOT / "scripts/examples"
SMALL = ("--dim", "16", "--depth", "1", "--heads", "2", "--batch-size", "8", "--warmup", "3")
TABLE = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
SIDES = (1, 2, 4)
"""Of the scales of images of 16 pixels."""


@dataclass(frozen=True)
class Script:
    """One of the training scripts, with a small model."""

    name: str

    def start(self, *arguments: str | Path, folder: Path, **options: Any) -> Child:
        """In a process of its own; `options` of Child."""
        return Child(_run, self.name, [str(argument) for argument in (*SMALL, *arguments)], folder=folder, **options)

    def trained(self, *arguments: str | Path, folder: Path) -> Done:
        """A run that must end well."""
        done = self.start(*arguments, folder=folder).wait()
        assert done.status == 0, done.err
        return done

    def refused(self, *arguments: str | Path, folder: Path, status: int) -> str:
        """The one message of a run that cannot be."""
        done = self.start(*arguments, folder=folder).wait()
        assert done.status == status, done.err
        assert "Traceback" not in done.err
        assert len(re.findall(f"^({self.name}|Error): ", done.err, re.MULTILINE)) == 1
        return done.err

    def check_kill(self, folder: Path, *command: str | Path, every: int, renames: int) -> None:
        """A run that is killed just before a checkpoint appears goes on to the bits of an undisturbed one.

        Its line of figures is there already, and comes again. What it has said so far is not lost in a buffer.
        """
        command = (*command, "--every", str(every), "--no-sample")
        self.trained(*command, "--output", folder / "undisturbed", folder=folder)
        output = folder / "killed"
        halt = Halt("os.rename", str(output / "checkpoint.safetensors"), renames)
        killed = self.start(*command, "--output", output, folder=folder, halt=halt).wait()
        assert killed.status == -9
        assert killed.out.splitlines()[-1].split()[0] == ("step" if renames == 1 else str(every * (renames - 1)))
        assert len(metrics(output)) == renames
        resumed = self.trained(*command, "--output", output, folder=folder)
        assert f"resumed after step {every * (renames - 1)}\n" in resumed.out
        for name in ("metrics.jsonl", "checkpoint.safetensors"):
            assert (output / name).read_bytes() == (folder / "undisturbed" / name).read_bytes()


def _run(name: str, arguments: list[str]) -> None:
    sys.path.insert(0, str(SCRIPTS))
    sys.argv = [f"{name}.py", *arguments]
    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")


def metrics(output: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def zero_order(store: TokenStore) -> float:
    """Bits per token."""
    share_K = store.code_counts[store.code_counts > 0] / store.code_counts.sum()
    return float(-(share_K * np.log2(share_K)).sum())


@pytest.fixture(scope="module")
def random_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 rows of random tokens with a codebook, some of them without a label."""
    return store_of_rows(tmp_path_factory.mktemp("random") / "store", [25, 15], table=TABLE)


@pytest.fixture(scope="session")
def scales(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished job over the collection with an untrained tokenizer of several scales. Read only."""
    folder = tmp_path_factory.mktemp("scales")
    torch.manual_seed(0)
    model = ModelConfig(
        network="vqgan",
        quantizer="multiscale",
        patch_nums=SIDES,
        vocab_size=16,
        embedding_dim=4,
        hidden_dim=32,
        residual_blocks=1,
    )
    network = network_to_train(model, ImageConfig(size=16)).eval()
    assert isinstance(network, Vqgan)
    torch.nn.init.normal_(network.quantize.embedding.weight, std=0.5)
    save_tokenizer(folder / "tokenizer", network, Normalization(), image_size=(16, 16))
    job = make_job(folder, collection, folder / "tokenizer", {"image.size": 16})
    assert job.run().complete
    return job
