"""Tokenizers: networks, the folders they are kept in, block layouts, rules, and the protocol that jobs know them by.

    batch_encoder      batches of images to tokens, in threads that keep a device busy
    tokenizers         the protocol, the registry of kinds, a module for each kind
    networks           SimpleVQVAE and VectorQuantizer, and what they search and learn with
    layouts · rules    values that a tokenizer brings along: the order of its tokens, and how they become embeddings
    folder             config.json and the files beside it
    arithmetic         which float32 torch may use
    determinism        the same bits each time on a GPU

The two model classes are imported when they are asked for, because importing torch takes seconds; layouts and
`tokenizers.registry.tokenizer_identity` do without it.
"""

from typing import TYPE_CHECKING

from pipeline.lazy import lazy_names

if TYPE_CHECKING:
    from pipeline.models.networks.quantizer import VectorQuantizer
    from pipeline.models.networks.vqvae import SimpleVQVAE

__all__ = ["SimpleVQVAE", "VectorQuantizer"]

__getattr__ = lazy_names(
    __name__, {"SimpleVQVAE": "pipeline.models.networks.vqvae", "VectorQuantizer": "pipeline.models.networks.quantizer"}
)
