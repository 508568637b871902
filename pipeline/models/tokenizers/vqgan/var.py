"""VAR's tokenizers, of several scales that add up (Tian et al. 2024, https://arxiv.org/abs/2404.02905).

Nothing here imports torch before it loads or imports weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import WEIGHTS, Count, FolderConfig, TokenizerFolder
from pipeline.models.folder.weights import files_digest
from pipeline.models.layouts.scales import PUBLISHED_SCALES, Scales, growing
from pipeline.models.networks.vqgan.architecture import Architecture
from pipeline.models.networks.vqgan.dialects import VAR
from pipeline.models.tokenizers.importer import Imported, Importer, ImportOption, Options, numbers_of
from pipeline.models.tokenizers.kind import Kind
from pipeline.records import Normalization, Record

if TYPE_CHECKING:
    from pipeline.models.tokenizers.protocol import Tokenizer

_NESTINGS = (("trainer", "vae_local"), ("model",), ("state_dict",), ())

_HITS = "quantize.ema_vocab_hit_SV"
"""[scales, codes], how often each occurs."""

_OWN_PHI = re.compile(r"quantize\.quant_resi\.\d+\.weight")
"""Of checkpoints with a convolution for each scale."""


class ScalesIdentity(Record):
    """`identity` in config.json, which stores compare and keep."""

    architecture: Architecture
    patch_nums: Annotated[tuple[int, ...], AfterValidator(growing)]
    """Tokens along the side of each scale."""
    phis: Count
    """Convolutions that the scales share."""
    cosine: Annotated[bool, Field(strict=True)]
    """Whether codes are searched by the angle between vector and code (`using_znorm`)."""
    normalization: Normalization
    """What the pixels have gone through."""
    weights: str
    """Digest of what model.safetensors holds."""


def _layouts(identity: ScalesIdentity) -> tuple[Scales, ...]:
    return (Scales(identity.patch_nums),)


def _load(folder: TokenizerFolder[ScalesIdentity], layout: Scales) -> Tokenizer:
    from pipeline.models.networks.budget import within
    from pipeline.models.networks.state import load_state
    from pipeline.models.networks.vqgan.model import Vqgan
    from pipeline.models.rules.multiscale import MULTISCALE
    from pipeline.models.tokenizers.network import NetworkTokenizer
    from pipeline.models.tokenizers.vqgan.trial import try_out

    identity = folder.identity
    with within(folder.files[WEIGHTS], folder.path):
        model = Vqgan(identity.architecture, cosine=identity.cosine, patch_nums=identity.patch_nums, phis=identity.phis)
    load_state(model, folder.files[WEIGHTS], folder.path / WEIGHTS)
    try_out(model.eval(), side=identity.patch_nums[-1], path=folder.path)
    arrays = model.quantize.rule_arrays()
    return NetworkTokenizer(model, layout, identity.normalization, folder.identity_json(), MULTISCALE, arrays)


def _read(source: str, options: Options) -> Imported:
    from pipeline.models.networks.checkpoint import read_checkpoint
    from pipeline.models.networks.state import state_bytes
    from pipeline.models.networks.vqgan.published import read_network

    path, patch_nums = Path(source), options.get("patch-nums", PUBLISHED_SCALES)
    tensors = read_checkpoint(path, _NESTINGS)
    if "patch-nums" not in options:
        _refuse_other_scales(tensors, path)
    found = read_network(tensors, VAR, path, scales=len(patch_nums))
    files = {WEIGHTS: state_bytes(found.state)}
    identity = ScalesIdentity(
        architecture=found.architecture,
        patch_nums=patch_nums,
        phis=found.phis,
        cosine=options.get("cosine", False),
        normalization=Normalization(),
        weights=files_digest(files),
    )
    side = patch_nums[-1] * found.architecture.downsampling
    return Imported(FolderConfig(kind="var", identity=identity.tree(), image_size=(side, side)), files)


def _refuse_other_scales(tensors: Mapping[str, Any], path: Path) -> None:
    """Raises TokenizerError where the statistics or the convolutions are those of another number of scales.

    That of the published files is assumed where nothing is said; tokens of the wrong scales look like any other.
    """
    hits = tensors.get(_HITS)
    told = {_HITS: hits.shape[0]} if hits is not None and hits.ndim == 2 else {}
    if own := {name for name in tensors if _OWN_PHI.fullmatch(name)}:
        told[min(own)] = len(own)
    for name, scales in told.items():
        if scales != len(PUBLISHED_SCALES):
            raise TokenizerError(
                f"{path}: {name} tells of {scales} scales, and without --patch-nums there are "
                f"{len(PUBLISHED_SCALES)}; name those that it was trained with, such as "
                f"--patch-nums {','.join(map(str, range(1, scales + 1)))}"
            )


KIND = Kind(
    ScalesIdentity.model_validate,
    _layouts,
    _load,
    importer=Importer(
        "A tokenizer of VAR: vae_ch160v4096z32.pth.",
        "FILE",
        _read,
        (
            ImportOption(
                "patch-nums",
                f"Tokens along the side of each scale; by default {','.join(map(str, PUBLISHED_SCALES))}, for 256 px.",
                "N,N,...",
                lambda text: growing(numbers_of(text)),
            ),
            ImportOption("cosine", "Codes are searched by angle (VAR's using_znorm); by default by distance."),
        ),
    ),
)
