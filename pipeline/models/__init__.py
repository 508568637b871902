"""Tokenizers: the model, the protocol that jobs know it by, block layouts, tokenizer folders.

    SimpleVQVAE ── VectorQuantizer        vqvae, quantizer (search, kmeans, ranks)
         │
    VqvaeTokenizer : Tokenizer            tokenizer, blocks
         │
    save_tokenizer, load_tokenizer        pretrained (folder, weights)

The two model classes are imported when they are asked for, because importing torch takes seconds; blocks and
`pretrained.tokenizer_identity` do without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.models.quantizer import VectorQuantizer
    from pipeline.models.vqvae import SimpleVQVAE

__all__ = ["SimpleVQVAE", "VectorQuantizer"]

_HOMES = {"SimpleVQVAE": "pipeline.models.vqvae", "VectorQuantizer": "pipeline.models.quantizer"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
