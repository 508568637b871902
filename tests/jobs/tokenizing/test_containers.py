"""One set of photographs gives the same tokens and labels from every kind of container, killed or not."""

import gzip
import json
import random
import signal
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures_store import Halt, Job, good_samples, make_job, vqtok
from support import ROOT, sampled, tar_bytes

from pipeline.store import TokenStore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytest_plugins = ["fixtures_store"]

Files = dict[str, bytes]


def photographs() -> Files:
    """Files of samples in folders of classes, in the order of their keys; of real photographs where there are some."""
    shards = ROOT.parent / "shared/data/photos/photos-0000.tar"
    found: Files = {}
    if shards.exists():
        with tarfile.open(shards) as tar:
            for info in tar.getmembers():
                data = tar.extractfile(info)
                if info.isfile() and data is not None and info.size < 100_000 and len(found) < 24:
                    found[f"n01/{info.name.rpartition('/')[2]}"] = data.read()
    for folder, first, count in (("n02", 0, 14), ("n01", 40, 0 if found else 8)):
        for key, members in good_samples(first, count):
            found |= {f"{folder}/{key}.{name}": data for name, data in members.items()}
    complete = {name.rpartition(".")[0] for name in found if name.endswith(".jpg")}
    return {name: data for name, data in sorted(found.items()) if name.rpartition(".")[0] in complete}


PHOTOGRAPHS = photographs()
TAR = tar_bytes(PHOTOGRAPHS)


def inside(folder: str) -> bytes:
    return tar_bytes({name: data for name, data in PHOTOGRAPHS.items() if name.startswith(f"{folder}/")})


def write_folder(folder: Path) -> None:
    for name, data in PHOTOGRAPHS.items():
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_parquet(folder: Path, first: int = 0, last: int | None = None) -> None:
    keys = sorted({name.rpartition(".")[0] for name in PHOTOGRAPHS})[first:last]
    texts = [PHOTOGRAPHS.get(f"{key}.txt") for key in keys]
    labels = [PHOTOGRAPHS.get(f"{key}.cls") for key in keys]
    table = pa.table(
        {
            "image": [{"bytes": PHOTOGRAPHS[f"{key}.jpg"], "path": f"{key}.jpg"} for key in keys],
            "label": [None if label is None else int(label) for label in labels],
            "txt": pa.array([None if text is None else text.decode() for text in texts], pa.string()),
        }
    )
    pq.write_table(table, folder / f"x{first}.parquet", row_group_size=5)


def shuffled() -> bytes:
    return tar_bytes(random.Random(0).sample(sorted(PHOTOGRAPHS.items()), len(PHOTOGRAPHS)))


Written = tuple[Callable[[Path], object], str, dict[str, Any]]
CONTAINERS: dict[str, Written] = {
    "tar": (lambda folder: (folder / "x.tar").write_bytes(TAR), "x.tar", {}),
    "tar.gz": (lambda folder: (folder / "x.tgz").write_bytes(gzip.compress(TAR)), "x.tgz", {}),
    "tar.zst": (lambda folder: (folder / "x.tar").write_bytes(zstd.compress(TAR)), "x.tar", {}),
    "nested": (
        lambda folder: (folder / "x.tar").write_bytes(tar_bytes({"1.tar": inside("n01"), "2.tar": inside("n02")})),
        "x.tar",
        {"source.nested": True},
    ),
    "regrouped": (lambda folder: (folder / "x.tar").write_bytes(shuffled()), "x.tar", {"source.regroup": True}),
    "folder": (write_folder, "photos", {}),
    "parquet": (write_parquet, "*.parquet", {}),
}


def job_of(folder: Path, container: str, tokenizer: Path) -> Job:
    write, pattern, changes = CONTAINERS[container]
    (folder / "source").mkdir(parents=True)
    write(folder / "source")
    changes = {"source.shards": f"{folder}/source/{pattern}", "source.base": f"{folder}/source", **changes}
    return make_job(folder / "job", folder / "source", tokenizer, changes)


def contents(job: Job) -> dict[str, tuple[Any, ...]]:
    """Label, caption and tokens of each row by the key within its class."""
    store = TokenStore(job.store)
    everything = np.arange(len(store))
    rows = store.read(everything)
    tokens = np.concatenate([block.numpy() for block in rows.idx_Bl], axis=1)
    found = zip(store.keys, rows.label, store.field_of("txt", everything), tokens, strict=True)
    by_key = {key: (int(label), caption, row.tolist()) for key, label, caption, row in found}
    assert len(by_key) == len(store)
    return by_key


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> dict[str, tuple[Any, ...]]:
    job = job_of(tmp_path_factory.mktemp("tar"), "tar", tokenizer_folder)
    assert job.run().complete
    return contents(job)


@pytest.mark.parametrize("container", [name for name in CONTAINERS if name != "tar"])
def test_every_container_gives_the_same_rows(
    container: str, expected: dict[str, tuple[Any, ...]], tokenizer_folder: Path, tmp_path: Path
) -> None:
    job = job_of(tmp_path, container, tokenizer_folder)
    assert job.run().complete
    assert contents(job) == expected
    done = vqtok("verify", "--config", job.file, "--rate", "1", "--json", folder=job.output).wait()
    assert (done.status, json.loads(done.out)["token_agreement"]) == (0, 1.0), done


KILLS = [
    Halt("os.link", "/listings/", 2),
    Halt("os.link", "/commits/", 2),
    Halt("open", "n02/000005.jpg"),
    Halt("open", "x12.parquet"),
    Halt("os.link", "/listings/", 1),
    Halt("os.link", "/listings/", 3),
    Halt("os.link", "/commits/", 1),
    Halt("os.link", "/commits/", 3),
    Halt("os.rename", "/manifest.json", 1),
    Halt("open", "n01/", 9),
    Halt("os.link", "/claims/", 2),
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Job:
    """A finished job over two folders and two Parquet files."""
    folder = tmp_path_factory.mktemp("mixed")
    write_folder(folder / "source")
    write_parquet(folder / "source", 0, 12)
    write_parquet(folder / "source", 12)
    source = folder / "source"
    changes = {
        "source.shards": [f"{source}/photos/n01", f"{source}/photos/n02", f"{source}/*.parquet"],
        "source.base": str(source),
        "image.max_pixels": 10**6,
    }
    job = make_job(folder / "job", source, tokenizer_folder, changes)
    assert job.run().complete
    return job


@pytest.mark.parametrize("halt", sampled(*KILLS))
def test_killed_anywhere_the_same_command_ends_in_the_same_store(mixed: Job, tmp_path: Path, halt: Halt) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(mixed.file.read_text().replace(str(mixed.store), f"{tmp_path}/store"))
    job = Job(file, mixed.source, mixed.tokenizer, tmp_path / "store")
    assert job.start(halt=halt).wait().status == -signal.SIGKILL
    children = [job.start() for _ in range(2)]
    assert [child.wait().status for child in children] == [0, 0]
    assert job.digest == mixed.digest
    assert vqtok("verify", "--config", job.file, folder=job.output).wait().status == 0
