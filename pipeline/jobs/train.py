"""`vqtok train`: from source shards to a tokenizer folder.

TOKENIZER/
  config.json, model.safetensors    the tokenizer, written last
  train.json                        the configuration it belongs to, and the result once it is finished
  metrics.jsonl, tensorboard/       figures
  reconstructions.png               held-out originals above their reconstructions, the newest
  reconstructions/                  the same, of every evaluation
  checkpoints/                      the whole training state, to resume from
  source-index.npz                  where the samples of the source shards are, so that a resume need not count anew
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.jobs.training.birth import TrainResult, find_result


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


def run(config: Config) -> TrainSummary:
    """Train the tokenizer of `config`, resume its training, or find it finished.

    Under torchrun or `accelerate launch` every process calls this. A finished tokenizer is found without
    importing torch.

    Raises TokenizerError when the folder holds the work of another configuration, ConfigError and SourceError for
    a configuration or images that cannot be trained on.
    """
    folder = Path(config.tokenizer.path)
    result = find_result(config)
    if result is not None:
        return TrainSummary(folder, result, trained=False)
    # Importing torch takes seconds.
    from pipeline.jobs.training.loop import Training

    return TrainSummary(folder, Training(config).run(), trained=True)
