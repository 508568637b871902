"""VAR's tokenizers, of several scales that add up (Tian et al. 2024, https://arxiv.org/abs/2404.02905).

Nothing here imports torch before it loads or imports weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

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
    found = read_network(read_checkpoint(path, _NESTINGS), VAR, path, scales=len(patch_nums))
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
