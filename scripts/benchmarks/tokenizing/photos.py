"""The photographs that all are given: the same JPEG files in the same tars."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from webdataset import TarWriter

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.jobs.sampling import job as sample
from pipeline.source.find import find_source_shards
from pipeline.source.reading import open_shard
from pipeline.source.selection import Selection

TARS = 4
_JPEG = b"\xff\xd8"


@dataclass(frozen=True)
class Photos:
    """Some photographs, numbered, in a folder of their own."""

    tars: tuple[Path, ...]
    files: tuple[bytes, ...]
    """JPEG files in the order of the tars."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def pattern(self) -> str:
        """What `source.shards` is to say."""
        return str(self.tars[0].parent / "*.tar")


def sample_patterns(folder: Path) -> tuple[str, ...]:
    """Make the sample set of `vqtok sample` in `folder`."""
    sample.run(folder)
    return (str(folder / "photos-*.tar"),)


def read_photographs(patterns: Sequence[str]) -> list[bytes]:
    """All JPEG files of the source shards that the patterns name, in order.

    Raises ConfigError for a pattern that matches nothing, SourceError for a damaged tar or one without JPEG files.
    """
    source = SourceConfig(shards=tuple(patterns))
    files = [data for data in _images(source) if data.startswith(_JPEG)]
    if not files:
        raise SourceError(f"{', '.join(patterns)}: no JPEG file in there; name tars of photographs")
    return files


def write_photos(folder: Path, files: Sequence[bytes], count: int) -> Photos:
    """`count` photographs in TARS tars of equal length; the files come again when there are too few."""
    folder.mkdir(parents=True)
    chosen = tuple(itertools.islice(itertools.cycle(files), count))
    tars = tuple(folder / f"photos-{number:04d}.tar" for number in range(TARS))
    for number, tar in enumerate(tars):
        with TarWriter(str(tar)) as writer:
            for index in range(number * count // TARS, (number + 1) * count // TARS):
                writer.write({"__key__": f"{index:07d}", "jpg": chosen[index]})
    return Photos(tars, chosen)


def _images(source: SourceConfig) -> Iterator[bytes]:
    selection = Selection(source)
    for shard in find_source_shards(source):
        for each in open_shard(shard, source):
            yield selection.image(each)
