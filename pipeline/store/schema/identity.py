"""The identity of a store: all that decides its rows, as a tree of named fields in `store.json`."""

from pydantic import BaseModel

from pipeline.before import completed
from pipeline.config import ImageConfig, SourceConfig
from pipeline.models.tokenizers.registry import completed_tokenizer
from pipeline.records import JSON, differences


class IdentityKeys(BaseModel):
    """Where the keys of an identity are declared; those that came later say with `Before` what older stores mean.

    Those of the tokenizer are as its kind declares them."""

    image: ImageConfig
    layout: str
    source: SourceConfig


def completed_identity(identity: JSON) -> JSON:
    """An identity with the keys that were not there yet when it was written."""
    tree = completed(IdentityKeys, identity)
    if isinstance(tokenizer := identity.get("tokenizer"), dict):
        tree["tokenizer"] = completed_tokenizer(tokenizer)
    return tree


def identity_differences(ours: JSON, theirs: JSON) -> list[str]:
    """Name every field in which two identities differ, with both values; none for those of equal tokens."""
    return differences(completed_identity(ours), completed_identity(theirs))
