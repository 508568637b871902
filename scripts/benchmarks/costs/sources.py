"""Collections of many tiny source shards, and a job over them."""

import io
import tarfile
from pathlib import Path

import yaml
from PIL import Image

SIDE = 32


def tiny_tar() -> bytes:
    """A source shard of one image."""
    image = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (200, 80, 40)).save(image, "JPEG")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        for name, data in {"0.jpg": image.getvalue(), "0.cls": b"1"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            writer.addfile(member, io.BytesIO(data))
    return tar.getvalue()


def shard_name(number: int) -> str:
    """Of the source shards in a collection."""
    return f"train-{number:06d}.tar"


def write_job(file: Path, source: str, store: str, tokenizer: Path) -> Path:
    """The configuration of a job over such a collection."""
    tree = {
        "source": {"shards": f"{source}/*.tar"},
        "image": {"size": SIDE},
        "tokenizer": {"path": str(tokenizer)},
        "tokenize": {"store": store, "batch_size": 1},
    }
    file.write_text(yaml.safe_dump(tree))
    return file
