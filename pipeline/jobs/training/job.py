"""`vqtok train`: from source shards to a tokenizer folder.

TOKENIZER/
  config.json, model.safetensors    the tokenizer, written last
  train.json                        the configuration it belongs to, its changes, and the result once it is finished
  metrics.jsonl, tensorboard/       figures
  reconstructions.png               held-out originals above their reconstructions, the newest
  reconstructions/                  the same, of every evaluation
  checkpoints/                      the whole training state, to resume from
  source-index.npz                  where the samples of the source shards are, so that a resume need not count anew
"""

import signal
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.files import is_url
from pipeline.jobs.training.birth import FILE, TrainResult, accept, find_result
from pipeline.jobs.training.schedule import require_peak
from pipeline.models.folder.contents import has_tokenizer
from pipeline.models.tokenizers.registry import tokenizer_identity
from pipeline.printing import say
from pipeline.process.signals import exit_status, stop_request
from pipeline.world import launched_rank


@dataclass(frozen=True)
class TrainSummary:
    """What `vqtok train` found or made in `folder`."""

    folder: Path
    result: TrainResult
    trained: bool
    """False when the finished tokenizer was there already."""

    def __str__(self) -> str:
        result = self.result
        quality = (
            f"held-out PSNR {result.psnr:.2f} dB, {result.codes_used} of {result.vocab_size} codes used,"
            f" perplexity {result.perplexity:.0f}"
            if result.psnr is not None
            else "no held-out images (train.holdout), so no PSNR and no pictures"
        )
        state = "trained" if self.trained else "already trained, nothing to do"
        return f"{self.folder}: {state}; {result.steps} steps; {quality}"


def run(config: Config, *, allow_change: bool = False, allow_slow: bool = False, growing: bool = False) -> TrainSummary:
    """Train the tokenizer of `config`, resume its training, or find it finished.

    Under torchrun or `accelerate launch` every process calls this. A finished tokenizer is found without
    importing torch. Told to stop by a signal it saves a checkpoint and raises SystemExit with 128 + the signal.

    Args:
        allow_change: go on in the folder of another configuration, and write down what changed.
        allow_slow: go on with a `train.precision` that this processor has no instructions for.
        growing: once training is finished, more source shards, and other ones, are no change: they are to be tokenized.

    Raises TokenizerError when the folder holds the work of another configuration, TrainingDiverged when the training
    goes wrong, ConfigError and SourceError for a configuration or images that cannot be trained on.
    """
    launched_rank()  # Accelerate would end in a traceback for what is no rank
    folder = Path(config.tokenizer.path)
    with stop_request("ended at once; the same command goes on from the newest checkpoint, if there is one") as request:
        result = find_result(config, allow_change=allow_change, growing=growing)
        if result is not None:
            if allow_change:
                accept(config, result, growing=growing)
            return TrainSummary(folder, result, trained=False)
        require_peak(config.train)
        # Importing torch takes seconds.
        from pipeline.jobs.training.loop import Training

        result = Training(config, allow_slow=allow_slow).run(request, allow_change=allow_change)
        if request.signum is not None:  # after the last step: nothing that comes next is begun
            _say_complete(folder, request.signum)
            raise SystemExit(exit_status(request.signum))
        return TrainSummary(folder, result, trained=True)


def _say_complete(folder: Path, signum: int) -> None:
    if launched_rank()[0] == 0:
        name = signal.Signals(signum).name
        say(f"vqtok: {name}: came after the last step; the tokenizer in {folder} is complete", error=True)


def has_one(config: Config) -> bool:
    """Whether there is a finished tokenizer; one at a URL has to be there."""
    return is_url(config.tokenizer.path) or has_tokenizer(Path(config.tokenizer.path))


def ensure(config: Config, *, allow_change: bool = False, allow_slow: bool = False) -> TrainSummary | None:
    """Have a tokenizer to tokenize with: train it like `run` unless it is there. None where nothing tells how it came.

    That is so in a folder without `train.json`, imported or saved by hand, and for a configuration that sets nothing
    in its `train` section. A tokenizer at a URL has to be there. Raises what `run` does.
    """
    if is_url(config.tokenizer.path):
        tokenizer_identity(config.tokenizer.path, config.tokenizer.storage)
        return None
    folder = Path(config.tokenizer.path)
    if has_tokenizer(folder) and not (config.train.model_fields_set and (folder / FILE).exists()):
        return None
    return run(config, allow_change=allow_change, allow_slow=allow_slow, growing=True)
