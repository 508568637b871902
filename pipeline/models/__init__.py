"""Tokenizers: the model, the protocol that jobs know it by, block layouts, tokenizer folders.

    SimpleVQVAE ── VectorQuantizer        vqvae, quantizer (search, kmeans, ranks)
         │
    VqvaeTokenizer : Tokenizer            tokenizer, blocks
         │
    save_tokenizer, load_tokenizer        pretrained (folder, weights)

The two model classes are imported when they are asked for, because importing torch takes seconds; blocks and
`pretrained.tokenizer_identity` do without it.
"""

from typing import TYPE_CHECKING

from pipeline.lazy import lazy_names

if TYPE_CHECKING:
    from pipeline.models.quantizer import VectorQuantizer
    from pipeline.models.vqvae import SimpleVQVAE

__all__ = ["SimpleVQVAE", "VectorQuantizer"]

__getattr__ = lazy_names(
    __name__, {"SimpleVQVAE": "pipeline.models.vqvae", "VectorQuantizer": "pipeline.models.quantizer"}
)
