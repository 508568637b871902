"""The token store, format 1: immutable parts, and commit records that make them exist.

STORE/store.json                    birth: what every token in here is, decided once     birth
STORE/tokens.zarr/codebook/         the table that tokens index into                    hierarchy
STORE/tokens.zarr/parts/<p>.<a>/    arrays of one attempt at one source shard           arrays, writer
STORE/staging/<p>.<a>/              an attempt being written                            writer
STORE/commits/<p>.json              which attempt counts; written last, once            commits
STORE/rejects/<p>.<a>.jsonl         samples that could not be tokenized                 writer
STORE/failures/<p>.json             why a source shard is still pending                 failures
STORE/manifest.json                 snapshot that readers open                          manifest, snapshot
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.store.cache import PartCache as PartCache
    from pipeline.store.reader import TokenStore as TokenStore

__all__ = ["PartCache", "TokenStore"]


def __getattr__(name: str) -> Any:
    # The reader hands out tensors; `vqtok status` must answer without the seconds that torch takes.
    if name == "TokenStore":
        from pipeline.store.reader import TokenStore

        return TokenStore
    if name == "PartCache":
        from pipeline.store.cache import PartCache

        return PartCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
