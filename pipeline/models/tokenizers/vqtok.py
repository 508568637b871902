"""Tokenizer folders: written after training.

Saving imports torch, and nothing before it does.
"""

import os

from pipeline.errors import TokenizerError
from pipeline.files import LocalFiles
from pipeline.models.folder.architectures import TokenizerModel
from pipeline.models.folder.contents import CONFIG, WEIGHTS, FolderConfig, TokenizerIdentity
from pipeline.models.folder.weights import weights_digest
from pipeline.records import JSON, Normalization


def save_tokenizer(
    folder: str | os.PathLike[str],
    model: TokenizerModel,
    normalization: Normalization,
    train_summary: JSON | None = None,
    *,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Write a tokenizer folder, or replace the one there; each file appears at once and whole.

    It holds what inference needs; what the quantizer counts in training belongs to checkpoints. config.json
    comes last and holds a digest of the weights, so a folder caught between the two is noticed.

    Raises TokenizerError when a weight is not finite, which is how diverged training ends.
    """
    weights = _serialize(model)
    config = FolderConfig(
        identity=TokenizerIdentity(
            architecture=type(model).__name__,
            arguments=dict(model.arguments),
            normalization=normalization,
            downsampling=model.downsampling,
            weights=weights_digest(weights),
        ),
        image_size=image_size,
        train=train_summary,
    )
    files = LocalFiles(folder)
    files.put(WEIGHTS, weights)
    files.put(CONFIG, config.to_json())


def _serialize(model: TokenizerModel) -> bytes:
    """What inference needs of the model, as a safetensors file with float32 for every floating dtype."""
    import torch

    from pipeline.models.networks.state import state_bytes

    # Not on the meta device: its first use loads torch's compiler, which takes longer than torch itself.
    with torch.random.fork_rng(devices=[]):  # in the middle of training it must draw no random numbers
        names = type(model)(**model.arguments).state_dict().keys()
    state = {name: value.detach().cpu() for name, value in model.state_dict().items() if name in names}
    for name, value in state.items():
        if not value.isfinite().all():
            raise TokenizerError(f"{name} is not finite: training diverged; lower the learning rate")
    return state_bytes(state)
