"""The token store, format 1: immutable parts, and commit records that make them exist.

STORE/store.json                    birth: what every token in here is, decided once     schema.birth
STORE/tokens.zarr/codebook/         the table that tokens index into                    writing.hierarchy
STORE/tokens.zarr/rule/<name>/      what the rule for embeddings needs besides            writing.hierarchy
STORE/tokens.zarr/parts/<p>.<a>/    arrays of one attempt at one source shard           arrays, writing.writer
STORE/staging/<p>.<a>/              an attempt being written                            writing.writer
STORE/commits/<p>.json              which attempt counts; written last, once            schema.commits
STORE/rejects/<p>.<a>.jsonl         samples that could not be tokenized                 writing.writer
STORE/failures/<p>.json             why a source shard is still pending                 schema.failures
STORE/manifest.json                 snapshot that readers open                          schema.manifest, schema.snapshot

`reader` and `batch` are what is handed out; `keys`, `var_input` (embeddings) and `cache` belong to it; `memory` is
where rows lie.
"""

from typing import TYPE_CHECKING

from pipeline.lazy import lazy_names

if TYPE_CHECKING:
    from pipeline.store.cache.parts import PartCache
    from pipeline.store.reader import TokenStore

__all__ = ["PartCache", "TokenStore"]

# The reader hands out tensors; `vqtok status` must answer without the seconds that torch takes.
__getattr__ = lazy_names(__name__, {"PartCache": "pipeline.store.cache.parts", "TokenStore": "pipeline.store.reader"})
