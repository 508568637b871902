"""Training on objects: worker processes that are started anew read the same images in the same order."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from fixtures_s3 import BUCKET, S3
from fixtures_store import cold_python, good_samples, write_shard
from safetensors.torch import load_file

pytest_plugins = ["fixtures_store", "fixtures_s3"]

TRAIN = "import sys; from pipeline.cli import main; main(sys.argv[1:])"


def train(folder: Path, source: str, workers: int) -> dict[str, torch.Tensor]:
    """The weights after a short `vqtok train` of two intervals."""
    tree = {
        "source": {"shards": f"{source}/train-*.tar"},
        "image": {"size": 16},
        "tokenizer": {"path": str(folder / "tokenizer")},
        "tokenize": {"store": str(folder / "store")},
        "train": {
            "model": {"vocab_size": 16, "embedding_dim": 4, "hidden_dim": 8},
            "holdout": [f"{source}/heldout.tar"],
            "steps": 4,
            "batch_size": 4,
            "warmup_steps": 1,
            "shuffle_buffer": 6,
            "log_every": 2,
            "evaluate_every": 4,
            "checkpoint_every": 2,
            "workers": workers,
        },
    }
    folder.mkdir()
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(tree))
    done = cold_python(TRAIN, "train", "--config", file)
    assert (done.status, "Traceback" in done.err) == (0, False), done.err
    lines = [json.loads(line) for line in (folder / "tokenizer/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    (weights,) = (folder / "tokenizer").glob("*.safetensors")
    return load_file(weights)


@pytest.mark.slow
def test_training_on_objects_gives_the_weights_of_training_on_files(s3: S3, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number, name in enumerate(("train-0", "train-1", "heldout")):
        path = write_shard(source / f"{name}.tar", good_samples(20 * number, 12))
        s3.request("PUT", f"/{BUCKET}/train/{path.name}", path.read_bytes())
    local = train(tmp_path / "local", str(source), 1)
    remote = train(tmp_path / "remote", f"s3://{BUCKET}/train", 1)
    assert local.keys() == remote.keys() != set()
    assert all(torch.equal(local[name], remote[name]) for name in local)
