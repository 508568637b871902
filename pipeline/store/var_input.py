"""The rule of a store, by which block index lists become embedding sequences, with all that it needs."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.files import Files
from pipeline.models.rules.embedder import Embedder
from pipeline.models.rules.known import RULES
from pipeline.models.rules.rule import Rule
from pipeline.store.schema.birth import Birth
from pipeline.store.writing.hierarchy import check_rule


def rule_of(files: Files, birth: Birth) -> Rule:
    """The rule that the store's birth names. Raises StoreError for one that this version does not know."""
    if birth.var_input not in RULES:
        raise StoreError(
            f"{files.root}: embeddings of this store follow the rule {birth.var_input!r}, and this version of vqtok "
            f"knows {', '.join(RULES)}; upgrade vqtok, or use the tokenizer itself"
        )
    return RULES[birth.var_input]


def var_input_of(files: Files, birth: Birth, codebook: Callable[[], Tensor]) -> Embedder:
    """What applies the rule, with the arrays that the store keeps for it.

    Args:
        codebook: gives float32 [K, C].

    Raises StoreError as `rule_of` does, and where the rule needs an array that the store never had; CorruptStore where
    one is missing or damaged.
    """
    rule = rule_of(files, birth)
    arrays = {name: torch.from_numpy(array) for name, array in check_rule(files, birth).items()}
    if missing := [name for name in rule.arrays if name not in arrays]:
        raise StoreError(
            f"{files.root}: embeddings of this store follow the rule {rule.name!r}, which needs the array "
            f"{missing[0]!r}, and the store has none; use the tokenizer itself"
        )
    return Embedder(rule, codebook(), arrays)
