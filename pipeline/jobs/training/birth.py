"""`train.json`: which configuration a tokenizer folder belongs to, and what came of it.

Written when training begins, so that no other configuration continues it, and once more, with the result,
when the tokenizer is saved. Reading it needs no torch.
"""

from pathlib import Path

from pydantic import ValidationError

from pipeline.config import Config
from pipeline.errors import TokenizerError
from pipeline.files import LocalFiles
from pipeline.records import JSON, Record, differences

FILE = "train.json"
_TOKENIZER_FILES = ("config.json", "model.safetensors")
_REMEDY = "set another tokenizer.path, or delete the folder"
_FREE = {
    "source": {"base", "label", "keep", "allow_unterminated"},
    "train": {"log_every", "evaluate_every"},
}
"""Keys that may change between two runs: they decide neither weights nor figures."""


class TrainResult(Record):
    """What a finished training came to. Held-out figures are None without `train.holdout`."""

    steps: int
    psnr: float | None
    """Peak signal-to-noise ratio of the held-out reconstructions in dB."""
    perplexity: float | None
    """exp of the entropy of code use over the held-out images."""
    codes_used: int | None
    """Codes that at least one held-out position fell to."""
    vocab_size: int


class Birth(Record):
    """The content of `train.json`."""

    configuration: JSON
    """All that decides weights and figures, by section."""
    result: TrainResult | None = None
    """None until the tokenizer is finished."""


def find_result(config: Config) -> TrainResult | None:
    """What a finished training of this configuration came to; None when there is training left to do.

    Raises TokenizerError when the folder holds the work of another configuration, or of unknown origin.
    """
    folder = Path(config.tokenizer.path)
    if folder.exists() and not folder.is_dir():
        raise TokenizerError(f"{folder}: is a file; set another tokenizer.path")
    if not _holds_work(folder):
        return None
    found = _read(folder / FILE)
    lines = differences(_of(config).configuration, found.configuration)
    if lines:
        raise TokenizerError(
            f"{folder}: holds the training of another configuration; {_REMEDY}\n"
            + "\n".join(f"  {line}" for line in lines)
        )
    return found.result if all((folder / name).is_file() for name in _TOKENIZER_FILES) else None


def begin(config: Config) -> None:
    """Bind the folder to this configuration. The caller holds it alone. Raises TokenizerError."""
    find_result(config)
    LocalFiles(config.tokenizer.path).put(FILE, _of(config).to_json())


def record_result(config: Config, result: TrainResult) -> None:
    """Mark the tokenizer in the folder as finished."""
    finished = _of(config).model_copy(update={"result": result})
    LocalFiles(config.tokenizer.path).put(FILE, finished.to_json())


def _of(config: Config) -> Birth:
    sections = {"source", "image", "train"}
    return Birth(configuration=config.model_dump(mode="json", include=sections, exclude=_FREE))


def _holds_work(folder: Path) -> bool:
    """Whether something would be lost if another configuration took the folder over."""
    return any((folder / name).exists() for name in _TOKENIZER_FILES) or any(folder.glob("checkpoints/step-*"))


def _read(path: Path) -> Birth:
    try:
        return Birth.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise TokenizerError(f"{path.parent}: holds a tokenizer that `vqtok train` did not make; {_REMEDY}") from None
    except (ValidationError, OSError) as error:
        raise TokenizerError(f"{path}: cannot be read as that of a training; {_REMEDY}") from error
