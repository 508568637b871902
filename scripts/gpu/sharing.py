"""Several processes on a GPU, launchers, and no context on another GPU than a process's own."""

import sys
from collections.abc import Iterator, Sequence

from gpu.check import Bench, Line, skipped
from gpu.processes import Contexts, Ended, started, vqtok


def processes_of_one_gpu(bench: Bench) -> Iterator[Line]:
    """1, 2 and 4 processes for each GPU: the same digest, and a context of each process on its own GPU alone."""
    expected, _ = bench.collection.tokenized("expected")
    for each in (1, 2, 4) if bench.on_gpu else (2,):
        count = each * max(1, bench.gpus)
        done, contexts, digest = _launched(bench, f"processes-{each}", vqtok("tokenize", "--processes", count))
        ok = done.status == 0 and digest == expected
        rate = bench.collection.images / done.seconds
        figures = f"{digest[:12] or done.last_words}; {rate:,.0f} images/s with the start"
        yield Line(f"{each} processes for each GPU, the same digest", ok, figures)
        if bench.on_gpu:
            yield _contexts(contexts, each, count)


def launchers(bench: Bench) -> Iterator[Line]:
    """The same command under torchrun and accelerate launch."""
    expected, _ = bench.collection.tokenized("expected")
    count = max(2, bench.gpus) if bench.on_gpu else 2
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(max(1, bench.gpus))]
    if bench.gpus > 1:
        accelerate.append("--multi_gpu")
    for name, command in (("torchrun", torchrun), ("accelerate launch", accelerate)):
        if not bench.on_gpu and name != "torchrun":
            yield skipped(f"under {name}", "no GPU")
            continue
        line = [*command, "-m", "pipeline", "tokenize"]
        done, _, digest = _launched(bench, name.split()[0], line)
        figures = digest[:12] or done.last_words
        yield Line(f"under {name}, the same digest", done.status == 0 and digest == expected, figures)


def _launched(bench: Bench, name: str, command: Sequence[str]) -> tuple[Ended, Contexts, str]:
    config = bench.collection.config(name)
    contexts = Contexts()
    words = [*command, "--no-progress", "--config", str(bench.collection.folder / f"{name}.yaml")]
    with started(words, bench.folder / name) as running:
        done = running.ended(bench.seconds_left, contexts if bench.on_gpu else lambda: None)
    return done, contexts, bench.collection.digest(config) if done.status == 0 else ""


def _contexts(contexts: Contexts, each: int, count: int) -> Line:
    what = f"{each} contexts on each GPU, none extra"
    if not contexts.most:
        return skipped(what, "nvidia-smi names no processes here")
    several = [gpus for gpus in contexts.gpus_of.values() if len(gpus) > 1]
    most = max(contexts.most.values())
    figures = f"{dict(contexts.most)}, {len(contexts.gpus_of)} processes, {len(several)} of them on several GPUs"
    # A parent that only starts the others has none.
    return Line(what, not several and most <= each and len(contexts.gpus_of) <= count, figures)
