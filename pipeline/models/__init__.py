"""Tokenizers: the model, the protocol that jobs know it by, block layouts, tokenizer folders.

    SimpleVQVAE ── VectorQuantizer        networks (vqvae, quantizer, search, kmeans, ranks)
         │
    VqvaeTokenizer : Tokenizer            tokenizers (network, protocol), layouts, rules
         │
    save_tokenizer, load_tokenizer        tokenizers (vqtok, registry), folder

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
