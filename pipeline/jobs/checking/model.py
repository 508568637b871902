"""The tokenizer: whether it loads and fits the images; or whether one can be trained that does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.files import is_url
from pipeline.jobs.checking.lines import Checks
from pipeline.jobs.work.tokenizer import tokenizer_of
from pipeline.models.folder.contents import has_tokenizer
from pipeline.models.tokenizers.registry import tokenizer_identity
from pipeline.store.schema.birth import Birth
from pipeline.world import World, current_world

if TYPE_CHECKING:
    from pipeline.models.tokenizers.protocol import Tokenizer

ABOUT = "tokenizer"
# Importing torch from a slow disk, and reading the weights of a large model, takes longer than a request.
TIMES = 10.0


@dataclass(frozen=True)
class Model:
    """What the job would encode with, and the birth of its store."""

    tokenizer: Tokenizer
    world: World
    birth: Birth


def is_to_be_trained(config: Config) -> bool:
    """Whether there is no tokenizer, and the configuration says how to train one."""
    path = config.tokenizer.path
    return bool(config.train.model_fields_set) and not is_url(path) and not has_tokenizer(path)


def check_training(checks: Checks, config: Config) -> None:
    """Say that the tokenizer is yet to be trained, and whether it will fit."""
    checks.add(
        ABOUT, "loads", "note", f"{config.tokenizer.path}: not there yet; vqtok train, or vqtok run, will train it"
    )

    def take() -> str:
        from pipeline.jobs.training.network import network_to_train  # imports torch, as others below do

        network_to_train(config.train.model, config.image)
        return f"{_pixels(config)}, by the tokenizer to train"

    checks.attempt(ABOUT, "image.size", take, str, at_most=TIMES)


def check_model(checks: Checks, config: Config, classes: tuple[str, ...] | None) -> Model | None:
    """The tokenizer of the configuration, if the job can use it."""
    path = config.tokenizer.path

    def load() -> tuple[World, Tokenizer]:
        # What is no tokenizer is told without the seconds that torch takes.
        tokenizer_identity(path, config.tokenizer.storage)
        world = current_world()
        return world, tokenizer_of(config, world)

    loaded = checks.attempt(ABOUT, "loads", load, lambda loaded: _describe(path, *loaded), at_most=TIMES)
    if loaded is None:
        return None
    world, tokenizer = loaded

    def take() -> Birth:
        from pipeline.jobs.tokenizing.job import make_birth

        return make_birth(config, tokenizer, classes)

    birth = checks.attempt(ABOUT, "image.size", take, lambda birth: _fit(config, birth), at_most=TIMES)
    if birth is None:
        return None
    _check_precision(checks, config, tokenizer, world)
    return Model(tokenizer, world, birth)


def _check_precision(checks: Checks, config: Config, tokenizer: Tokenizer, world: World) -> None:
    if config.tokenize.precision == "fp32":
        return

    def measure() -> str:
        from pipeline.jobs.work.precision import refuse_slow_precision

        refuse_slow_precision(config, tokenizer, world.device)
        return config.tokenize.precision

    checks.attempt(ABOUT, "precision", measure, str, at_most=TIMES)


def _describe(path: str, world: World, tokenizer: Tokenizer) -> str:
    codebook = tokenizer.codebook
    return f"{path}: {codebook.vocab_size:,} codes of length {codebook.embedding_dim}, on {world.device}"


def _fit(config: Config, birth: Birth) -> str:
    from pipeline.jobs.tokenizing.job import describe_another_size

    h, w = birth.geometry.grid
    fitting = f"{_pixels(config)} make {h} x {w} tokens, layout {birth.geometry.layout}"
    other = describe_another_size(config)
    return f"{fitting}; {other}" if other else fitting


def _pixels(config: Config) -> str:
    height, width = config.image.size
    return f"{height} x {width} pixels"
