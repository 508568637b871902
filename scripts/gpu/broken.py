"""`vqtok` with an encoder whose index leaves its table on the device, as a wrong kernel's would.

    python broken.py CLAIMS tokenize ...        as soon as something is claimed in the folder CLAIMS

On a CPU it says what torch says of a GPU on which that has happened.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.cli import main
from pipeline.models.tokenizers.network import NetworkTokenizer

_vectors = NetworkTokenizer._vectors


def _broken(tokenizer: NetworkTokenizer, *arguments: Any) -> Tensor:
    if any(_claims.glob("*.json")):
        if tokenizer.device.type == "cpu":
            raise RuntimeError("CUDA error: device-side assert triggered")
        table_44 = torch.zeros(4, 4, device=tokenizer.device)
        table_44[torch.full((1,), 1 << 20, device=tokenizer.device)].sum()
    return _vectors(tokenizer, *arguments)


if __name__ == "__main__":
    _claims = Path(sys.argv.pop(1))
    NetworkTokenizer._vectors = _broken  # type: ignore[assignment,method-assign]
    main()
