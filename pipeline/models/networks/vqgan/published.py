"""From the tensors of a published checkpoint to those of `Vqgan`, with every name accounted for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.networks.accounting import Shape, account_for, shape_of
from pipeline.models.networks.budget import Budget
from pipeline.models.networks.checkpoint import floats
from pipeline.models.networks.vqgan.architecture import Architecture, MissingTensor, architecture_of
from pipeline.models.networks.vqgan.dialects import Dialect
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.printing import printable


@dataclass(frozen=True)
class Published:
    """A network out of a checkpoint."""

    architecture: Architecture
    phis: int
    """Convolutions that its scales share; 0 for a network of one grid."""
    state: dict[str, Tensor]
    """Float32 tensors by the names of `Vqgan`."""


def read_network(tensors: Mapping[str, Any], dialects: Sequence[Dialect], path: Path, scales: int = 0) -> Published:
    """The network that a checkpoint holds.

    Args:
        tensors: by their names there.
        dialects: what the checkpoint may call them; the one that fits most names counts.
        path: of the checkpoint, for errors.
        scales: how many there are; 0 for a network of one grid.

    Raises TokenizerError listing every name that is missing, left over, or of another shape.
    """
    dialect = max(dialects, key=lambda dialect: len(dialect.translated(tensors)))
    tensors = _out_of_whole(tensors, dialect)
    _refuse_other_kinds(tensors, dialect, path)
    ours = dialect.translated(name for name in tensors if not name.startswith(dialect.ignored))
    left_over = sorted(name for name in tensors if name not in ours and not name.startswith(dialect.ignored))
    shapes = {name: shape_of(tensors[name]) for name in ours}
    levels = dialect.levels(ours)
    try:
        architecture = architecture_of({ours[name]: shape for name, shape in shapes.items()})
    except MissingTensor as error:
        needed = dict.fromkeys(dialect.sources(error.name, levels), ())
        account_for({}, needed, path, left_over)
        raise
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None
    phis = len({name for name in ours.values() if name.startswith("quantize.phi.") and name.endswith(".weight")})
    with Budget(shapes.values(), path):
        wanted = _wanted_shapes(architecture, max(phis, 1) if scales else 0, scales)
    sources = {name: dialect.sources(name, levels) for name in wanted}
    theirs = {part: _part(wanted[name], len(parts)) for name, parts in sources.items() for part in parts}
    account_for(shapes, theirs, path, left_over)
    state = floats({name: tensors[name] for name in theirs}, path)
    joined = {name: torch.cat([state[part] for part in parts]) for name, parts in sources.items()}
    return Published(architecture, phis, joined)


def _out_of_whole(tensors: Mapping[str, Any], dialect: Dialect) -> Mapping[str, Any]:
    if not dialect.whole or not any(name.startswith(dialect.whole) for name in tensors):
        return tensors
    parts = ((name.partition(dialect.whole), value) for name, value in tensors.items())
    return {inner: value for (before, whole, inner), value in parts if whole and not before}


def _refuse_other_kinds(names: Collection[str], dialect: Dialect, path: Path) -> None:
    if "quant_conv.weight" in names and not any(name.startswith("quantize.") for name in names):
        raise TokenizerError(
            f"{path}: has an encoder and no codebook (quantize.…), as the KL autoencoders of latent-diffusion and "
            "Stable Diffusion: their latents are continuous, and there are no tokens to make"
        )
    for name in sorted(names):
        for start, what in dialect.refused.items():
            if name.startswith(start):
                raise TokenizerError(f"{path}: {printable(name)} is {what}; such tokenizers are not taken")


def _wanted_shapes(architecture: Architecture, phis: int, scales: int) -> dict[str, Shape]:
    model = Vqgan(architecture, patch_nums=range(1, scales + 1) if scales else None, phis=phis)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _part(shape: Shape, parts: int) -> Shape:
    return shape[0] // parts, *shape[1:]
