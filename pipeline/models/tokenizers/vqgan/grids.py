"""Tokenizers of the VQ-GAN family with one grid of codes. Imports no torch before it loads or imports weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipeline.models.folder.contents import WEIGHTS, FolderConfig, TokenizerFolder
from pipeline.models.folder.weights import files_digest
from pipeline.models.layouts.cuts import CUTS, GridCut
from pipeline.models.networks.vqgan.architecture import Architecture
from pipeline.models.networks.vqgan.dialects import Dialect
from pipeline.models.tokenizers.importer import Imported, Importer, Options
from pipeline.models.tokenizers.kind import Kind
from pipeline.records import Normalization, Record

if TYPE_CHECKING:
    from pipeline.models.tokenizers.protocol import Tokenizer

Nestings = Sequence[tuple[str, ...]]


class GridIdentity(Record):
    """`identity` in config.json, which stores compare and keep."""

    architecture: Architecture
    cosine: Annotated[bool, Field(strict=True)]
    """Whether vectors and codes are l2-normalised, for the search and for what is decoded."""
    normalization: Normalization
    """What the pixels have gone through."""
    weights: str
    """Digest of what model.safetensors holds."""


def grid_kind(
    name: str, dialects: Sequence[Dialect], nestings: Nestings, cosine: bool, help: str
) -> Kind[GridIdentity]:
    """A kind of checkpoints of this family.

    Args:
        nestings: where the tensors may lie in the file.
        cosine: whether the family normalises its codes.
    """
    read = partial(_read, name, dialects, nestings, cosine)
    return Kind(
        GridIdentity.model_validate, _layouts, _load, own_layout="raster", importer=Importer(help, "FILE", read)
    )


def _layouts(identity: GridIdentity) -> tuple[GridCut, ...]:
    return tuple(CUTS.values())


def _load(folder: TokenizerFolder[GridIdentity], layout: GridCut) -> Tokenizer:
    from pipeline.models.networks.budget import within
    from pipeline.models.networks.state import load_state
    from pipeline.models.networks.vqgan.model import Vqgan
    from pipeline.models.tokenizers.network import NetworkTokenizer
    from pipeline.models.tokenizers.vqgan.trial import try_out

    identity = folder.identity
    with within(folder.files[WEIGHTS], folder.path):
        model = Vqgan(identity.architecture, cosine=identity.cosine)
    load_state(model, folder.files[WEIGHTS], folder.path / WEIGHTS)
    try_out(model.eval(), side=4, path=folder.path)
    return NetworkTokenizer(model, layout, identity.normalization, folder.identity_json())


def _read(
    name: str, dialects: Sequence[Dialect], nestings: Nestings, cosine: bool, source: str, options: Options
) -> Imported:
    from pipeline.models.networks.checkpoint import read_checkpoint
    from pipeline.models.networks.state import state_bytes
    from pipeline.models.networks.vqgan.published import read_network

    path = Path(source)
    found = read_network(read_checkpoint(path, nestings), dialects, path)
    files = {WEIGHTS: state_bytes(found.state)}
    identity = GridIdentity(
        architecture=found.architecture, cosine=cosine, normalization=Normalization(), weights=files_digest(files)
    )
    return Imported(FolderConfig(kind=name, identity=identity.tree()), files)
