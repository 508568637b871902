"""A Parquet file, opened."""

import contextlib
import io
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, SourceError
from pipeline.files import is_url
from pipeline.files.ranges import Ranges
from pipeline.records import SourceShard
from pipeline.source.shards.opening import location, read_bytes, shard_name, source_errors

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# Columns are read in pieces of this size, and not whole, which may be gigabytes.
_BUFFER_BYTES = 1 << 20
_REQUEST_BYTES = 8 << 20
_FOOTERS = 64


def open_table(shard: SourceShard) -> "pq.ParquetFile":
    """Raises SourceError for what is no Parquet file, ConfigError without pyarrow."""
    parquet = _pyarrow_parquet()
    with table_errors(shard):
        metadata = _footer(shard)
        return parquet.ParquetFile(_file(shard), metadata=metadata, buffer_size=_BUFFER_BYTES, pre_buffer=False)


@contextlib.contextmanager
def table_errors(shard: SourceShard) -> Iterator[None]:
    """What goes wrong in reading a Parquet file as a SourceError."""
    import pyarrow

    name = shard_name(shard)
    with source_errors(name):
        try:
            yield
        except pyarrow.ArrowException as error:
            raise _damaged(name, error) from error
        except OSError as error:
            if error.errno is not None:  # of the file below
                raise
            raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> SourceError:
    return SourceError(
        f"{name}: no Parquet file, or a damaged one, or cut off ({str(error).partition(chr(10))[0]}); copy it again"
    )


def _file(shard: SourceShard) -> Any:
    if is_url(shard.base):
        return io.BufferedReader(Ranges(partial(read_bytes, shard), shard.bytes or 0), _REQUEST_BYTES)
    return location(shard)


@lru_cache(_FOOTERS)
def _footer(shard: SourceShard) -> Any:
    """The metadata, kept: training opens files again and again, and those of wide ones are megabytes."""
    metadata = _pyarrow_parquet().read_metadata(_file(shard))
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    # Memory is asked for by these numbers. A row takes a byte, or part of one where rows are equal.
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows or metadata.num_rows > 8 * (shard.bytes or 0):
        raise _damaged(shard_name(shard), ValueError(f"its footer tells of {metadata.num_rows:,} rows"))
    return metadata


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "source.shards: Parquet files need the package pyarrow: pip install 'vqtok[parquet]'"
        ) from None
    return pyarrow.parquet
