"""`vqtok` with an encoder whose index leaves its table on the device, as a wrong kernel's would."""

import torch
from torch import Tensor

from pipeline.cli import main
from pipeline.models.tokenizers.network import NetworkTokenizer

_encode = NetworkTokenizer.encode


def _broken(tokenizer: NetworkTokenizer, img_B3HW: Tensor) -> list[Tensor]:
    table = torch.zeros(4, 4, device=img_B3HW.device)
    table[torch.full((1,), 1 << 20, device=img_B3HW.device)].sum()
    return _encode(tokenizer, img_B3HW)


if __name__ == "__main__":
    NetworkTokenizer.encode = _broken  # type: ignore[assignment,method-assign]
    main()
