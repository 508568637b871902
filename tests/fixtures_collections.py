"""Small collections in every kind of container; a pytest plugin.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import gzip
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fixtures_store import write_shard
from PIL import Image
from support import encoded

from pipeline.jobs.inspecting.job import Inspection, run


def picture(number: int, format: str = "PNG", **options: Any) -> bytes:
    return encoded(Image.new("RGB", (20 + number, 30), (number, 0, 0)), format, **options)


def samples(count: int) -> list[tuple[str, dict[str, bytes]]]:
    return [
        (f"s{n:03d}", {"png": picture(n), "cls": str(n % 3).encode(), "txt": b"a red square", "json": b'{"id": 7}'})
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders, with a picture of each of several formats."""
    top = tmp_path_factory.mktemp("pictures")
    for name, data in {
        "cats/1.jpg": picture(1, "JPEG"),
        "cats/2.avif": picture(2, "AVIF"),
        "dogs/3.tga": picture(3, "TGA"),
        "dogs/4.png": picture(4)[:60],
        "dogs/4.txt": b"a broken dog",
        "dogs/notes.md": b"none of a sample",
    }.items():
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_bytes(data)
    return top


def as_plain(path: Path) -> str:
    write_shard(path / "a.tar", samples(5))
    return str(path)  # a folder of tars


def as_compressed(path: Path) -> str:
    write_shard(path / "a.tar", samples(5))
    (path / "a.tgz").write_bytes(gzip.compress((path / "a.tar").read_bytes()))
    (path / "a.tar").unlink()
    return str(path / "*.tgz")


def as_nested(path: Path) -> str:
    write_shard(path / "inner.tar", samples(5))
    with tarfile.open(path / "outer.tar", "w") as outer:
        outer.add(path / "inner.tar", "n01440764.tar")
    return str(path / "outer.tar")


def as_apart(path: Path) -> str:
    with tarfile.open(path / "a.tar", "w") as tar:
        for extension in ("png", "cls", "txt", "json"):
            for key, members in samples(5):
                (path / "member").write_bytes(members[extension])
                tar.add(path / "member", f"{key}.{extension}")
    return str(path / "a.tar")


def as_parquet(path: Path) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns: dict[str, list[Any]] = {"image": [], "label": [], "text": []}
    for key, members in samples(5):
        columns["image"].append({"bytes": members["png"], "path": f"{key}.png"})
        columns["label"].append(int(members["cls"]))
        columns["text"].append("a red square")
    parquet.write_table(pyarrow.table(columns), path / "a.parquet")
    return str(path / "a.parquet")


KINDS = {
    "plain": (as_plain, "tar", {}),
    "compressed": (as_compressed, "tar compressed with gzip", {}),
    "nested": (as_nested, "tar", {"nested": True}),
    "apart": (as_apart, "tar", {"regroup": True}),
    "parquet": (as_parquet, "Parquet", {}),
}


def inspected(kind: str, path: Path) -> tuple[str, Inspection]:
    path.mkdir(exist_ok=True)
    name = KINDS[kind][0](path)
    return name, run(name)
