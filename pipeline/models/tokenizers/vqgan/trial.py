"""A trial of the quantizers of this family.

Shape letters: B images, C length of a code, h and w grid sides.
"""

from pathlib import Path
from typing import Any

import torch

from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.tokenizers.trust import TOKENS, compare, fixed_images


@torch.no_grad()
def try_out(model: Vqgan, side: int, path: Path) -> None:
    """Raise TokenizerError unless the model uses the codes that its indices stand for.

    Args:
        side: of the grid that the quantizer takes. The images are small, and their vectors repeated to fill it.
        path: of the folder, for the error.
    """
    repeats = -(-side // TOKENS)
    z_BChw = model.encode(fixed_images(TOKENS * model.downsampling)).repeat(1, 1, repeats, repeats)
    z_BChw = z_BChw[:, :, :side, :side].contiguous()
    quantize: Any = model.quantize
    compare(quantize(z_BChw)[0], quantize.features(quantize.search(z_BChw)), path)
