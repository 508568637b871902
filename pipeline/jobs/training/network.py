"""The network that a configuration asks to be trained."""

from pipeline.config import ImageConfig, ModelConfig
from pipeline.errors import ConfigError, TokenizerError
from pipeline.jobs.work.image_size import taking
from pipeline.models import SimpleVQVAE
from pipeline.models.layouts.scales import Scales, growing
from pipeline.models.networks.images import whole_grid
from pipeline.models.networks.vqgan.architecture import GROUPS, Architecture, Coder
from pipeline.models.networks.vqgan.model import Vqgan

TrainedNetwork = SimpleVQVAE | Vqgan

_MULTIPLIERS = {4: (1, 1, 2), 8: (1, 1, 2, 2), 16: (1, 1, 2, 2, 4)}
"""Channels of each level, as multiples of those of the finest, by pixels per token."""
_BLOCKS = 2
_SIMPLE = ("vocab_size", "embedding_dim", "hidden_dim", "beta", "residual_blocks", "final_relu")
_QUANTIZER = ("ema_decay", "kmeans_init", "revive_after", "cosine")


def network_to_train(model: ModelConfig, image: ImageConfig) -> TrainedNetwork:
    """An untrained network.

    Raises ConfigError for keys that do not go together, and for an image size that it cannot take.
    """
    quantizer = model.model_dump(include=set(_QUANTIZER))
    if model.network == "simple":
        _refuse_for_simple(model)
        simple = SimpleVQVAE(**model.model_dump(include=set(_SIMPLE)), **quantizer)
        taking(image.size, lambda: simple.grid_of(*image.size), simple.downsampling, "the tokenizer to train")
        return simple
    architecture = _architecture(model)
    grid = taking(
        image.size, lambda: whole_grid(*image.size, model.downsampling), model.downsampling, "the tokenizer to train"
    )
    return Vqgan(architecture, patch_nums=_patch_nums(model, grid), beta=model.beta, **quantizer)


def _refuse_for_simple(model: ModelConfig) -> None:
    for key, only in (("downsampling", 4), ("quantizer", "plain"), ("patch_nums", None)):
        if getattr(model, key) != only:
            raise ConfigError(
                f"train.model.{key}: {getattr(model, key)} is for train.model.network=vqgan; set that, or leave it out"
            )


def _architecture(model: ModelConfig) -> Architecture:
    if model.hidden_dim % GROUPS:
        raise ConfigError(f"train.model.hidden_dim: {model.hidden_dim} is no multiple of {GROUPS}, as vqgan wants it")
    widths = tuple(model.hidden_dim * multiplier for multiplier in _MULTIPLIERS[model.downsampling])
    depth = model.residual_blocks or _BLOCKS
    attention = (*(False for _ in widths[1:]), True)
    return Architecture(
        encoder=Coder(widths=widths, depth=depth, attention=attention, middle_attention=True),
        decoder=Coder(widths=widths, depth=depth + 1, attention=attention, middle_attention=True),
        stem=model.hidden_dim,
        latent=model.embedding_dim,
        quant_kernel=3 if model.quantizer == "multiscale" else 1,
        vocab_size=model.vocab_size,
        embedding_dim=model.embedding_dim,
    )


def _patch_nums(model: ModelConfig, grid: tuple[int, int]) -> tuple[int, ...] | None:
    if model.quantizer == "plain":
        if model.patch_nums is not None:
            raise ConfigError("train.model.patch_nums: is for train.model.quantizer=multiscale; set that too")
        return None
    if model.patch_nums is None:
        raise ConfigError(
            f"train.model.patch_nums: missing; name the scales of multiscale, the last one {grid[0]}, such as "
            f"{[*(p for p in (1, 2, 3, 4, 6, 8, 10, 13) if p < grid[0]), grid[0]]}"
        )
    try:
        Scales(growing(model.patch_nums)).block_lengths(grid)
    except (TokenizerError, ValueError) as error:
        raise ConfigError(f"train.model.patch_nums: {error}") from None
    return model.patch_nums
