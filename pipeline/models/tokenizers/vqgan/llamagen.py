"""LlamaGen's tokenizers, VQ-16 and VQ-8 (Sun et al. 2024, https://arxiv.org/abs/2406.06525).

Vectors and codes are l2-normalised, for the search and for decoding alike: the codebook is the normalised table.
"""

from pipeline.models.networks.vqgan.dialects import LLAMAGEN
from pipeline.models.tokenizers.vqgan.grids import grid_kind

KIND = grid_kind(
    "llamagen",
    (LLAMAGEN,),
    (("ema",), ("model",), ("state_dict",), ()),
    cosine=True,
    help="A tokenizer of LlamaGen: vq_ds16_c2i.pt and the like.",
)
