"""Which names of members say that they are images."""

import re
from collections.abc import Collection, Iterable

from pipeline.printing import printable

COMMON_EXTENSIONS = frozenset("jpg jpeg jpe jfif png webp gif bmp tif tiff ppm pgm pbm pnm".split())
OTHER_EXTENSIONS = frozenset(
    "avif avifs jp2 j2k j2c jpc jpf jpx tga icb vda vst mpo apng heic heics heif heifs hif jxl".split()
)
"""Of formats that came later. Beside a member of the common ones they are no image: such samples stay as they were."""
IMAGE_EXTENSIONS = COMMON_EXTENSIONS | OTHER_EXTENSIONS

CONTAINER = re.compile(r".*\.(tar|tar\.\w+|tgz|parquet)", re.IGNORECASE | re.DOTALL)
"""Names of files that are made to hold samples, though not all do."""

_MOST_LISTED = 8


def last_extension(extension: str) -> str:
    """`v1.0.jpg`, as WebDataset has it, is a `jpg`."""
    return extension.rpartition(".")[2]


def preferred(images: Iterable[str]) -> list[str]:
    """Those extensions, of members that may be the image, among which it is."""
    found = list(images)
    common = [extension for extension in found if last_extension(extension) in COMMON_EXTENSIONS]
    return common or found


def why_no_image(members: Collection[str], wanted: str | None) -> str:
    """What a sample holds instead of an image, and what to set.

    Args:
        members: their extensions.
        wanted: `source.image`.
    """
    there = _listed(members) if members else "none"
    if wanted is None and members and all(extension.split(".")[0] in ("tar", "tgz") for extension in members):
        return f"no image member among {there}; tars in a tar are read with source.nested=true"
    if wanted is not None:
        return f"no .{wanted} member among {there}; set source.image to the one that holds the image, or to null"
    return f"no image member among {there}; where one of them is an image, name its extension in source.image"


def why_several(images: Collection[str]) -> str:
    """Which members of a sample may be the image, and what to set."""
    return f"several image members ({_listed(images)}); name one in source.image"


def _listed(extensions: Collection[str]) -> str:
    names = [f".{printable(extension)}" for extension in sorted(extensions)]
    more = f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
