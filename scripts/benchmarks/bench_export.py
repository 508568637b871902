"""How fast a store is exported, beside writing the same bytes with nothing else.

    python scripts/benchmarks/bench_export.py [--rows 1000000] [--processes 1]

Makes a store of images of 16 x 16 tokens in quadrants in a temporary folder, exports it once in each format and prints
rows of a Markdown table for docs/benchmarks.md. The store is in memory (it has just been read), the output goes to the
disk, and both times end when the bytes are there (fsync). CPU time is that of all processes.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from pipeline.files import LocalFiles
from pipeline.jobs.exporting import job
from pipeline.jobs.exporting.request import Request
from pipeline.records import Geometry, SourceRecord
from pipeline.store import TokenStore
from pipeline.store.schema.birth import DIGESTS, Birth, CodebookRecord, create_or_compare
from pipeline.store.schema.commits import committed_parts, read_commits
from pipeline.store.schema.manifest import write_manifest
from pipeline.store.schema.snapshot import make_manifest
from pipeline.store.writing.hierarchy import prepare_hierarchy
from pipeline.store.writing.writer import EncodedShard, commit_part

SIDE, VOCAB, ROWS_PER_PART = 16, 16_384, 100_000
REQUESTS = {
    "npy": Request(format="npy"),
    "megatron": Request(format="megatron"),
    "megatron, offset, begin, ends of lines": Request(format="megatron", offset=32_000, bos=1, eol=2),
    "bin": Request(format="bin"),
    "parquet": Request(format="parquet"),
    "webdataset": Request(format="webdataset"),
    "jsonl": Request(format="jsonl"),
    "llamagen": Request(format="llamagen"),
}
FLAT = 4
"""So many of them are flat: the others get a tenth of the rows."""


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--processes", default=1, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the temporary folder is made.")
def main(rows: int, processes: int, folder: Path | None) -> None:
    """Export in each format."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        large, small = make_store(work / "large", rows), make_store(work / "small", max(rows // 10, 1))
        tiny = make_store(work / "tiny", 100)
        for title, request in REQUESTS.items():
            measured(tiny, work / "out", title, request, processes=1)  # libraries of the formats are loaded
        print("| format | rows/s | rows per CPU second | MB/s written | time for the same bytes alone |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for number, (title, request) in enumerate(REQUESTS.items()):
            print(measured(large if number < FLAT else small, work / "out", title, request, processes), flush=True)


def measured(store: Path, out: Path, title: str, request: Request, processes: int) -> str:
    """A row of the table."""
    count = len(TokenStore(store))
    for batch in TokenStore(store).batches(1 << 14):  # warm
        assert batch.label is not None
    start, busy = time.perf_counter(), sum(os.times()[:4])
    job.run(str(store), out, request, processes)
    seconds, busy = time.perf_counter() - start, sum(os.times()[:4]) - busy
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    alone = write_alone(out, size)
    rates = f"{count / seconds:,.0f} | {count / max(busy, 0.01):,.0f} | {size / seconds / 1e6:,.0f}"
    return f"| {title} | {rates} | {alone / seconds:.0%} |"


def write_alone(file: Path, size: int) -> float:
    """Seconds that so many bytes take in one file."""
    block = np.random.default_rng(0).bytes(1 << 22)
    start = time.perf_counter()
    with file.open("wb") as opened:
        for _ in range(-(-size // len(block))):
            opened.write(block)
        opened.flush()
        os.fsync(opened.fileno())
    seconds = time.perf_counter() - start
    file.unlink()
    return seconds


def make_store(folder: Path, rows: int) -> Path:
    """A store of random tokens."""
    quarter = (SIDE // 2) ** 2
    birth = Birth(
        features=(DIGESTS,),
        identity={"tokenizer": {"weights": "none"}},
        geometry=Geometry(
            image_size=(16 * SIDE, 16 * SIDE),
            grid=(SIDE, SIDE),
            layout="quadrants",
            block_lengths=(quarter,) * 4,
            decodable=True,
        ),
        codebook=CodebookRecord(kind="implicit", vocab_size=VOCAB, embedding_dim=8, sha256=None),
        var_input="lookup",
        token_dtype="uint16",
        fields=(),
        codec="lz4",
    )
    files = LocalFiles(folder)
    create_or_compare(files, birth)
    prepare_hierarchy(files, birth, None)
    for number, start in enumerate(range(0, rows, ROWS_PER_PART)):
        commit_part(files, birth, _shard(f"part{number:05d}", number, min(ROWS_PER_PART, rows - start)))
    parts = sorted(committed_parts(files))
    write_manifest(files, birth, make_manifest(read_commits(files, parts), parts, VOCAB, 1, None))
    return folder


def _shard(part: str, number: int, rows: int) -> EncodedShard:
    return EncodedShard(
        part=part,
        sources=(SourceRecord(path=f"{part}.tar", bytes=10, sha256="0" * 64),),
        tokens=np.random.default_rng(number).integers(0, VOCAB, (rows, SIDE * SIDE), np.uint16),
        keys=[f"{part}/{row:09d}" for row in range(rows)],
        labels=[row % 1000 for row in range(rows)],
        fields={},
        rejects=[],
        ignored=[],
        execution={},
        seconds={},
        views=None,
    )


if __name__ == "__main__":
    main()
