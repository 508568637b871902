"""The kinds of containers that source shards may be."""

from pipeline.records import SourceShard
from pipeline.source.containers.container import Container
from pipeline.source.containers.tar.container import Tar

_CONTAINERS: tuple[Container, ...] = (Tar(),)


def container_of(shard: SourceShard) -> Container:
    """What can read a source shard. A tar may have any name, and so is asked last."""
    return next(container for container in _CONTAINERS if container.holds(shard.path))
