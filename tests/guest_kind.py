"""A second kind of tokenizer, as a guest writes one: patches through a fixed random projection, coded at two scales.

Its folder has two files beside config.json, its layout is no cut of one grid, and its rule needs an array. This module
imports no torch, as the registry asks for; what does is in `guest_network`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from pipeline.models.folder.contents import FolderConfig, TokenizerFolder, write_folder
from pipeline.models.folder.weights import files_digest
from pipeline.models.tokenizers.kind import Kind
from pipeline.records import Normalization, Record

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.tokenizers.protocol import Tokenizer

NAME = "projection"
PROJECTION, TABLES = "projection.safetensors", "tables/codes.npy"
PATCH, CODES, LENGTH = 8, 300, 6
"""Pixels along the side of a patch, K and C."""


class ProjectionIdentity(Record):
    """`identity` in config.json."""

    downsampling: int
    normalization: Normalization
    weights: str


class Pyramid:
    """A `BlockLayout` of two scales: one token for the whole image, then one for each patch."""

    name = "pyramid"
    decodable = True

    def block_lengths(self, grid: tuple[int, int]) -> tuple[int, ...]:
        return 1, grid[0] * grid[1]

    def split(self, idx: list[Tensor], /) -> list[Tensor]:
        return [idx_Bhw.flatten(1) for idx_Bhw in idx]

    def join(self, idx_Bl: list[Tensor], grid: tuple[int, int] | None = None) -> list[Tensor]:
        assert grid is not None
        return [idx_Bl[0].reshape(-1, 1, 1), idx_Bl[1].reshape(-1, *grid)]


def save_projection(folder: Path, seed: int = 0) -> Path:
    """A tokenizer folder of this kind."""
    draw = np.random.default_rng(seed)
    # Orthonormal rows, so that its transpose decodes.
    rows = np.linalg.qr(draw.normal(size=(3 * PATCH * PATCH, LENGTH)))[0].T.astype(np.float32)
    codes = io.BytesIO()
    np.save(codes, draw.normal(size=(CODES, LENGTH)).astype(np.float32) * 4)
    start = np.arange(LENGTH, dtype=np.float32)
    files = {
        PROJECTION: save({"projection": rows.reshape(LENGTH, 3, PATCH, PATCH), "start": start}),
        TABLES: codes.getvalue(),
    }
    identity = ProjectionIdentity(downsampling=PATCH, normalization=Normalization(), weights=files_digest(files))
    config = FolderConfig(kind=NAME, files=tuple(files), identity=identity.tree())
    write_folder(folder, config, files)
    return folder


def _load(folder: TokenizerFolder[ProjectionIdentity], layout: Any) -> Tokenizer:
    from guest_network import load

    return load(folder, layout)


KIND = Kind(ProjectionIdentity.model_validate, lambda identity: (Pyramid(),), _load)
