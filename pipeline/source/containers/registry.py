"""The kinds of containers that source shards may be."""

from collections.abc import Iterator

from pipeline.config import SourceConfig
from pipeline.records import SourceShard
from pipeline.source.containers.container import Container, Inner
from pipeline.source.containers.folder.container import Folder
from pipeline.source.containers.limits import Limits
from pipeline.source.containers.parquet.container import Parquet
from pipeline.source.containers.tar.container import Tar
from pipeline.source.containers.tar.nested import inner_tars

_CONTAINERS: tuple[Container, ...] = (Folder(), Parquet(), Tar())


def container_of(shard: SourceShard) -> Container:
    """What can read a source shard. A tar may have any name, and so is asked last."""
    return next(container for container in _CONTAINERS if container.holds(shard))


def shards_in(shard: SourceShard, source: SourceConfig) -> Iterator[Inner]:
    """The source shards that lie in a file: the tars in a tar. Raises SourceError where there are none."""
    return inner_tars(shard, Limits.of(source))
