"""A rule with what it needs, wherever it is asked for.

Shape letters: B images, V views, L_i tokens of block i, K codes, C their length.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.rules.lookup import listed
from pipeline.models.rules.rule import Rule

_Tables = tuple[Tensor, dict[str, Tensor]]


class Embedder:
    """Applies a rule; codebook and arrays are copied once to each device, and once for each dtype.

    Args:
        codebook_KC: float32 [K, C].
        arrays: those that the rule names.
    """

    def __init__(self, rule: Rule, codebook_KC: Tensor, arrays: Mapping[str, Tensor]) -> None:
        self._apply, self._picks_rows = rule.apply, rule.picks_rows
        self._codebook_KC = codebook_KC
        self._arrays = dict(arrays)
        self._placed: dict[tuple[torch.device, torch.dtype], _Tables] = {}

    def __call__(self, idx_Bl: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """Blocks int [B, L_i] as the embedding sequence [B, L, C] of `dtype`, on their device; blocks [B, V, L_i] of
        several views as [B, V, L, C].

        Raises TokenizerError as the rule does, and for one tensor or no blocks at all.
        """
        if len(listed(idx_Bl)) == 0:
            raise TokenizerError("expected a list of blocks [B, L_i], not an empty one")
        device, inner = idx_Bl[0].device, dtype if self._picks_rows else torch.float32
        tables = self._placed.get((device, inner)) or self._place(device, inner)
        leading = idx_Bl[0].shape[:-1]
        if len(leading) > 1:
            idx_Bl = [block.flatten(end_dim=-2) for block in idx_Bl]
        x_BLC = self._apply(idx_Bl, *tables)
        if len(leading) > 1:
            x_BLC = x_BLC.unflatten(0, leading)
        return x_BLC if x_BLC.dtype == dtype else x_BLC.to(dtype)

    def _place(self, device: torch.device, dtype: torch.dtype) -> _Tables:
        # Whole numbers say how to compute: on the host they can be read without waiting for the device.
        arrays = {
            name: array.to(device) if array.is_floating_point() else array for name, array in self._arrays.items()
        }
        tables = self._placed[device, dtype] = self._codebook_KC.to(device, dtype), arrays
        return tables
