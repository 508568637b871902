"""All rules that this version can apply."""

from pipeline.models.rules.lookup import LOOKUP
from pipeline.models.rules.multiscale import MULTISCALE
from pipeline.models.rules.rule import Rule

RULES: dict[str, Rule] = {rule.name: rule for rule in (LOOKUP, MULTISCALE)}
"""By the name that stores have in `var_input`. A store of another rule hands out tokens, but no embeddings."""
