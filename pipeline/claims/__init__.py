"""Claims: who is working on what. They only spare double work; nothing is lost or doubled without them."""

from pipeline.claims.holding import Claims
from pipeline.claims.record import (
    START,
    Claim,
    claimed,
    claimed_parts,
    claimed_starts,
    claims_by_version,
    find_claim,
    is_local_and_gone,
    read_claim,
    read_claims,
)

__all__ = [
    "START",
    "Claim",
    "Claims",
    "claimed",
    "claimed_parts",
    "claimed_starts",
    "claims_by_version",
    "find_claim",
    "is_local_and_gone",
    "read_claim",
    "read_claims",
]
