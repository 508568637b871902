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
# That of `datasets`, for images.
_ROW_GROUP = 100
_JPEG = b"\xff\xd8"


@dataclass(frozen=True)
class Photos:
    """Some photographs, numbered, in a folder of their own."""

    tars: tuple[Path, ...]
    files: tuple[bytes, ...]
    """JPEG files in the order of the tars."""

    def __len__(self) -> int:
        return len(self.files)

    def numbered(self, tar: int) -> Iterator[tuple[int, bytes]]:
        """Number and JPEG file of each photograph of one tar."""
        count = len(self.files)
        for index in range(tar * count // TARS, (tar + 1) * count // TARS):
            yield index, self.files[index]

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
    photos = Photos(tuple(folder / f"photos-{number:04d}.tar" for number in range(TARS)), chosen)
    for number, tar in enumerate(photos.tars):
        with TarWriter(str(tar)) as writer:
            for index, data in photos.numbered(number):
                writer.write({"__key__": f"{index:07d}", "jpg": data})
    return photos


def write_folder(folder: Path, photos: Photos) -> str:
    """The same files in a folder for each tar; returns what `source.shards` is to say."""
    for number, tar in enumerate(photos.tars):
        place = folder / tar.stem
        place.mkdir(parents=True)
        for index, data in photos.numbered(number):
            (place / f"{index:07d}.jpg").write_bytes(data)
    return str(folder)


def write_parquet(folder: Path, photos: Photos) -> str:
    """The same files in a Parquet file for each tar, as Hugging Face writes them; returns what `source.shards` is to
    say."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True)
    for number, tar in enumerate(photos.tars):
        images = [{"bytes": data, "path": f"{index:07d}.jpg"} for index, data in photos.numbered(number)]
        pyarrow.parquet.write_table(
            pyarrow.table({"image": images}), folder / f"{tar.stem}.parquet", row_group_size=_ROW_GROUP
        )
    return str(folder / "*.parquet")


def _images(source: SourceConfig) -> Iterator[bytes]:
    selection = Selection(source)
    for shard in find_source_shards(source):
        for each in open_shard(shard, source):
            yield selection.image(each)
