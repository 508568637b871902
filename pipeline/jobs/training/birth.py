"""`train.json`: which configuration a tokenizer folder belongs to, and what came of it.

Written when training starts, so that no other configuration continues it, and once more, with the result,
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


def claim_folder(config: Config) -> Birth:
    """Bind the folder `tokenizer.path` to this configuration, or find it bound to it already.

    Processes may call this side by side. Raises TokenizerError when the folder belongs to another
    configuration, holds a tokenizer of unknown origin, or cannot be written.
    """
    folder = Path(config.tokenizer.path)
    ours = Birth(configuration=config.model_dump(mode="json", include={"source", "image", "train"}, exclude=_FREE))
    try:
        if not (folder / FILE).exists():
            _refuse_unknown_tokenizer(folder)
            LocalFiles(folder).put_if_absent(FILE, ours.to_json())
        theirs = Birth.model_validate_json((folder / FILE).read_bytes())
    except ValidationError as error:
        raise TokenizerError(f"{folder / FILE}: not written by `vqtok train`; {_REMEDY}") from error
    except OSError as error:
        raise TokenizerError(f"{folder}: cannot be used as the tokenizer folder: {error}") from error
    lines = differences(ours.configuration, theirs.configuration)
    if lines:
        raise TokenizerError(
            f"{folder}: belongs to a training with another configuration; {_REMEDY}\n"
            + "\n".join(f"  {line}" for line in lines)
        )
    complete = all((folder / name).is_file() for name in _TOKENIZER_FILES)
    return theirs if complete else theirs.model_copy(update={"result": None})


def record_result(folder: Path, birth: Birth, result: TrainResult) -> None:
    """Mark the tokenizer in `folder` as finished."""
    LocalFiles(folder).put(FILE, birth.model_copy(update={"result": result}).to_json())


def _refuse_unknown_tokenizer(folder: Path) -> None:
    for name in _TOKENIZER_FILES:
        if (folder / name).exists():
            raise TokenizerError(f"{folder / name}: a tokenizer that `vqtok train` did not write; {_REMEDY}")
