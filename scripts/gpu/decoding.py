"""nvJPEG beside a busy encoder: the pixels must be those of a device that does one thing after the other."""

from collections.abc import Iterator

from gpu.check import Bench, Line, skipped
from gpu.processes import run, vqtok
from pipeline.errors import ConfigError

_WHAT = "nvjpeg beside a busy encoder against CUDA_LAUNCH_BLOCKING=1"


def nvjpeg(bench: Bench) -> Iterator[Line]:
    """Both digests, and those of several turns with everything at once."""
    if not bench.on_gpu:
        yield skipped(_WHAT, "no GPU")
        return
    collection, options = bench.collection, {"decoder": "nvjpeg"}
    try:
        turns = [collection.tokenized(f"nvjpeg-{turn}", image=options) for turn in range(3)]
    except ConfigError as error:
        yield skipped(_WHAT, str(error))
        return
    config = collection.config("blocking", image=options)
    file = collection.folder / "blocking.yaml"
    command = vqtok("tokenize", "--no-progress", "--config", file)
    log = bench.folder / "blocking"
    done = run(command, log, bench.seconds_left, CUDA_LAUNCH_BLOCKING="1")
    if done.status:
        yield Line(_WHAT, False, done.last_words)
        return
    expected = collection.digest(config)
    equal = sum(digest == expected for digest, _ in turns)
    rate = max(rate for _, rate in turns)
    yield Line(_WHAT, equal == len(turns), f"{equal} of {len(turns)} digests equal; {rate:,.0f} images/s")
