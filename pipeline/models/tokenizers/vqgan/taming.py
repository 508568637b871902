"""VQ-GANs of taming-transformers (Esser et al. 2021, https://arxiv.org/abs/2012.09841) and latent-diffusion."""

from pipeline.models.networks.vqgan.dialects import TAMING
from pipeline.models.tokenizers.vqgan.grids import grid_kind

KIND = grid_kind(
    "taming",
    (TAMING,),
    (("state_dict",), ("model",), ()),
    cosine=False,
    help="A VQ-GAN of taming-transformers or latent-diffusion: last.ckpt, model.ckpt.",
)
