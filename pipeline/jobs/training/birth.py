"""`train.json`: which configuration a tokenizer folder belongs to, how it changed, and what came of it.

Written when training begins or goes on, and once more, with the result, when the tokenizer is saved. Reading it
needs no torch.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from pipeline.config import Config
from pipeline.errors import ConfigError, TokenizerError
from pipeline.files import LocalFiles, is_url
from pipeline.files.regular import read_regular
from pipeline.jobs.training.changes import FROM_NOW_ON, PATTERNS, Change, changed_values, configuration_of
from pipeline.jobs.training.checkpoint_names import checkpointed_steps
from pipeline.jobs.training.source_files import (
    Sources,
    changed_holdout,
    changed_shards,
    found_shards,
    read_holdout,
    read_sources,
)
from pipeline.records import JSON, Record
from pipeline.redaction import redacted_tree
from pipeline.source.find import refuse_among_images
from pipeline.source.folders.listings import Mode

FILE = "train.json"
_MARKER = "config.json"
"""What makes a folder a tokenizer; written last."""
_TOKENIZER_FILES = (_MARKER, "model.safetensors")
_ANOTHER = "set another tokenizer.path, or delete the folder"
_LINES = 20
"""Differences that a message names."""


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


class TrainingBirth(Record):
    """The content of `train.json`."""

    configuration: JSON
    """The sections that decide weights and figures, as they are now."""
    sources: Sources | None = None
    """The files behind the patterns; None in folders of versions before this was written down."""
    history: tuple[JSON, ...] = ()
    """Each change of the configuration on the way: `step` it was made after, `field`, `from`, `to`."""
    result: TrainResult | None = None
    """None until the tokenizer is finished."""


def find_result(config: Config, *, allow_change: bool = False, growing: bool = False) -> TrainResult | None:
    """What a finished training of this configuration came to; None when there is training left to do.

    What changes nothing about what was done may differ; `allow_change` lets everything else differ too.

    Args:
        growing: look at nothing but the `train` section once training is finished, for other images are going to be
            tokenized than were trained on.

    Raises TokenizerError when the folder holds the work of another configuration, or of unknown origin.
    """
    if is_url(config.tokenizer.path):
        raise TokenizerError(
            f"{config.tokenizer.path}: a training writes into a folder here: name one as tokenizer.path, and upload "
            "config.json and model.safetensors when it is finished"
        )
    folder = Path(config.tokenizer.path)
    if folder.exists() and not folder.is_dir():
        raise TokenizerError(f"{folder}: is a file; set another tokenizer.path")
    if not _holds_work(folder):
        return None
    birth = _read(folder / FILE)
    done = _steps_done(folder, birth)
    if config.train.steps < done:
        raise TokenizerError(
            f"{folder}: train.steps: {config.train.steps} here, and {done} are done; ask for at least as many, or "
            + _ANOTHER
        )
    finished = birth.result is not None and birth.result.steps == config.train.steps and _is_whole(folder)
    changes = _changes(config, birth, finished, growing)
    if not finished:
        _require_checkpoint(folder, birth, changes)
        changes = [change for change in changes if change.field not in FROM_NOW_ON]
    if changes and not allow_change:
        raise TokenizerError(_refusal(folder, changes, done, finished))
    return birth.result if finished else None


def begin(config: Config, step: int) -> None:
    """Bind the folder to this configuration, and note what has changed since `step` was reached.

    A tokenizer of fewer steps is none from here on: until the new one is saved, or where it is never saved, nobody is
    to take the old one for what the folder says. The caller holds the folder alone, and has called `find_result`.
    """
    path = Path(config.tokenizer.path, FILE)
    birth = _read(path) if _holds_work(path.parent) else None
    if birth is None:
        refuse_among_images(config.tokenizer.path, found_shards(config), "tokenizer.path")
    changes = _changes(config, birth, finished=False, growing=False) if birth else []
    born = _rewritten(birth, changes, step).model_copy(
        update={
            "configuration": configuration_of(config),
            "sources": read_sources(config, birth.sources if birth else None, Mode.KEEP),
            "result": None,
        }
    )
    (path.parent / _MARKER).unlink(missing_ok=True)
    LocalFiles(path.parent).put(FILE, born.to_json())


def accept(config: Config, result: TrainResult, *, growing: bool = False) -> None:
    """Note what has changed since training was finished. For those who have called `find_result`, with that `growing`.

    What `growing` leaves uncompared stays as it was: the images that the tokenizer was trained on.
    """
    path = Path(config.tokenizer.path, FILE)
    birth = _read(path)
    changes = _changes(config, birth, finished=True, growing=growing)
    if changes:
        now = configuration_of(config)
        update = {
            "configuration": {**redacted_tree(birth.configuration), "train": now["train"]} if growing else now,
            "sources": _sources_now(config, birth.sources, growing),
        }
        born = _rewritten(birth, changes, result.steps).model_copy(update=update)
        LocalFiles(path.parent).put(FILE, born.to_json())


def record_result(config: Config, result: TrainResult) -> None:
    """Mark the tokenizer in the folder as finished."""
    folder = Path(config.tokenizer.path)
    finished = _read(folder / FILE).model_copy(update={"result": result})
    LocalFiles(folder).put(FILE, finished.to_json())


def _rewritten(birth: TrainingBirth | None, changes: Sequence[Change], step: int) -> TrainingBirth:
    """The same with these changes in its history."""
    birth = birth or TrainingBirth(configuration={})
    history = (*birth.history, *(_noted(change, step) for change in changes))
    return birth.model_copy(update={"history": tuple(map(redacted_tree, history))})  # older versions left secrets there


def _sources_now(config: Config, known: Sources | None, growing: bool) -> Sources | None:
    """The files of a finished training, which needs its images no more."""
    try:
        if growing:
            return known and known.model_copy(update={"holdout": read_holdout(config, known)})
        return read_sources(config, known)
    except ConfigError:
        return known


def _changes(config: Config, birth: TrainingBirth, finished: bool, growing: bool) -> list[Change]:
    """All fields and files that differ. Of a finished training, files that are no longer there are not missed.

    Of one that is finished and `growing`, only the `train` section is compared, and no source shard is looked at.
    """
    only_train = finished and growing
    values = changed_values(config, birth.configuration)
    if only_train:
        values = [change for change in values if change.field.startswith("train.")]
    if birth.sources is None:
        return values
    files = []
    for changed in (changed_holdout,) if only_train else (changed_shards, changed_holdout):
        try:
            files += changed(config, birth.sources)
        except ConfigError:
            if not finished:
                raise
    return [change for change in values if change.field not in PATTERNS] + files


def _refusal(folder: Path, changes: Sequence[Change], done: int, finished: bool) -> str:
    lines = [f"  {change}" for change in changes[:_LINES]]
    if len(changes) > _LINES:
        lines.append(f"  and {len(changes) - _LINES:,} more")
    tokenize = "`vqtok tokenize` uses the tokenizer as it is; " if finished else ""
    longer = any(change.field in FROM_NOW_ON for change in changes)
    more = "more train.steps go on with another train.learning_rate; " if longer else ""
    allow = (
        f"--allow-change {'accepts the tokenizer' if finished else f'goes on from step {done}'}"
        f" and writes the change into {FILE}"
    )
    return "\n".join(
        [
            f"{folder}: holds the training of another configuration:",
            *lines,
            f"Set the values back, {_ANOTHER}; {tokenize}{more}{allow}",
        ]
    )


def _require_checkpoint(folder: Path, birth: TrainingBirth, changes: Sequence[Change]) -> None:
    """Refuse to begin anew, in silence, over a tokenizer that is finished."""
    if birth.result is not None and changes and not checkpointed_steps(folder):
        raise TokenizerError(
            f"{folder}: holds a finished tokenizer and no checkpoint to go on from:\n"
            + "\n".join(f"  {change}" for change in changes[:_LINES])
            + f"\nSet the values back, {_ANOTHER}"
        )


def _noted(change: Change, step: int) -> JSON:
    return {"step": step, "field": change.field, "from": change.there, "to": change.here}


def _steps_done(folder: Path, birth: TrainingBirth) -> int:
    return max(birth.result.steps if birth.result else 0, *checkpointed_steps(folder), 0)


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _TOKENIZER_FILES)


def _holds_work(folder: Path) -> bool:
    """Whether something would be lost if another configuration took the folder over."""
    return any((folder / name).exists() for name in _TOKENIZER_FILES) or bool(checkpointed_steps(folder))


def _read(path: Path) -> TrainingBirth:
    try:
        return TrainingBirth.model_validate_json(read_regular(path))
    except FileNotFoundError:
        raise TokenizerError(f"{path.parent}: holds a tokenizer that `vqtok train` did not make; {_ANOTHER}") from None
    except (ValidationError, OSError) as error:
        raise TokenizerError(f"{path}: cannot be read as that of a training; {_ANOTHER}") from error
