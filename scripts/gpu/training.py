"""The same weights twice, after a kill too, in every precision; and the same codebooks on all GPUs."""

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu.check import Bench, Line, skipped
from gpu.processes import Running, run, started, vqtok

_MODELS: dict[str, dict[str, Any]] = {
    "fp32": {"network": "vqgan", "downsampling": 4, "quantizer": "multiscale", "hidden_dim": 32},
    "bf16": {"final_relu": False, "ema_decay": 0.99, "kmeans_init": True, "revive_after": 4, "hidden_dim": 64},
    "fp16": {"network": "vqgan", "downsampling": 4, "cosine": True, "ema_decay": 0.99, "hidden_dim": 32},
}
"""A model for each precision, so that all of what training can do is done once."""


def training_killed_and_resumed(bench: Bench) -> Iterator[Line]:
    """An undisturbed training beside one that is killed after a checkpoint and goes on."""
    precisions = tuple(_MODELS) if bench.on_gpu else ("fp32",)
    jobs = {(precision, name): _job(bench, precision, name) for precision in precisions for name in ("whole", "killed")}
    with contextlib.ExitStack() as stack:  # all at once: most of their time is that of starting
        running = {
            key: stack.enter_context(started(vqtok("train", "--config", file), bench.folder / f"train-{'-'.join(key)}"))
            for key, file in jobs.items()
        }
        seen = {precision: _kill(bench, running[precision, "killed"], precision) for precision in precisions}
        ended = {precision: running[precision, "whole"].ended(bench.seconds_left) for precision in precisions}
        resumed = {
            precision: stack.enter_context(
                started(vqtok("train", "--config", jobs[precision, "killed"]), bench.folder / f"resumed-{precision}")
            )
            for precision in precisions
        }
        for precision in precisions:
            again = resumed[precision].ended(bench.seconds_left)
            one, two = (_weights(_tokenizer(bench, precision, name)) for name in ("whole", "killed"))
            ok = seen[precision] and ended[precision].status == again.status == 0 and one == two and one is not None
            figures = f"{one} {two}" if one and two else f"{ended[precision].last_words} {again.last_words}"
            yield Line(f"trained in {precision}, killed and resumed to the same bits", ok, figures)


def training_over_nccl(bench: Bench) -> Iterator[Line]:
    """A training of all GPUs: equal codebooks on all of them, and the same weights twice."""
    what = "trained over NCCL: equal codebooks on all GPUs, the same weights twice"
    if bench.on_gpu and bench.gpus < 2:
        yield skipped(what, "one GPU")
        return
    count = bench.gpus or 2
    found = []
    for name in ("one", "two"):
        file = _job(bench, "bf16" if bench.on_gpu else "fp32", f"ranks-{name}")
        script = Path(__file__).with_name("ranks.py")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        done = run([*command, str(script), str(file)], bench.folder / f"ranks-{name}", bench.seconds_left)
        if done.status:
            yield Line(what, False, done.last_words)
            return
        found.append(_weights(_tokenizer(bench, "bf16" if bench.on_gpu else "fp32", f"ranks-{name}")))
    yield Line(what, found[0] == found[1] and found[0] is not None, f"{count} processes; {found[0]} {found[1]}")


def _job(bench: Bench, precision: str, name: str) -> Path:
    side, steps = (64, 60) if bench.on_gpu else (16, 12)
    model = {"vocab_size": 256, "embedding_dim": 8, **_MODELS[precision]}
    if model.get("quantizer") == "multiscale":
        model["patch_nums"] = [1, 2, 3, side // 4]
    train = {
        "model": model,
        "precision": precision,
        "steps": steps,
        "checkpoint_every": steps // 3,
        "evaluate_every": steps,
        "batch_size": 16 if bench.on_gpu else 4,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "holdout": str(bench.collection.folder / "heldout.tar"),
    }
    folder = {"path": str(_tokenizer(bench, precision, name))}
    return bench.collection.file(f"train-{precision}-{name}", image={"size": side}, tokenizer=folder, train=train)


def _kill(bench: Bench, running: Running, precision: str) -> bool:
    """Kill a training as soon as it has a checkpoint; False where it has none, or was finished before."""
    folder = _tokenizer(bench, precision, "killed")
    seen = running.until(lambda: any(folder.glob("checkpoints/step-*")), bench.seconds_left)
    running.kill()
    return seen and not (folder / "config.json").exists()


def _tokenizer(bench: Bench, precision: str, name: str) -> Path:
    return bench.folder / f"trained-{precision}-{name}"


def _weights(folder: Path) -> str | None:
    file = folder / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.exists() else None
