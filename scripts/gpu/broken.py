"""`vqtok` with an encoder whose index leaves its table on the device, as a wrong kernel's would."""

from typing import Any

import torch
from torch import Tensor

from pipeline.cli import main
from pipeline.models.tokenizers.network import NetworkTokenizer

_vectors = NetworkTokenizer._vectors


def _broken(tokenizer: NetworkTokenizer, *arguments: Any) -> Tensor:
    table_44 = torch.zeros(4, 4, device=tokenizer.device)
    table_44[torch.full((1,), 1 << 20, device=tokenizer.device)].sum()
    return _vectors(tokenizer, *arguments)


if __name__ == "__main__":
    NetworkTokenizer._vectors = _broken  # type: ignore[assignment,method-assign]
    main()
