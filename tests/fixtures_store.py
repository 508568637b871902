"""What the tests of the store, the loader and the jobs stand on; a pytest plugin.

A small collection of tars with good and bad samples, a tiny tokenizer, a finished store, stores of given rows,
and real processes: forked from one that has imported torch already, or cold ones.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import ctypes
import faulthandler
import json
import multiprocessing
import multiprocessing.connection
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import unsynced  # noqa: F401 - for the processes below, too
import yaml
from PIL import Image
from support import encoded, write_tar

from pipeline.config import Config, load_config
from pipeline.files import LocalFiles
from pipeline.jobs.tokenizing import job as tokenize
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.vqtok import save_tokenizer
from pipeline.records import Geometry, Normalization, Reject, SourceRecord
from pipeline.store.arrays.codebook import table_digest
from pipeline.store.arrays.storage import Views
from pipeline.store.schema.birth import DIGESTS, Birth, CodebookRecord, create_or_compare, smallest_token_dtype
from pipeline.store.schema.commits import committed_parts, read_commits
from pipeline.store.schema.manifest import read_manifest, write_manifest
from pipeline.store.schema.snapshot import make_manifest
from pipeline.store.writing.hierarchy import prepare_hierarchy
from pipeline.store.writing.writer import EncodedShard, commit_part

IMAGE_SIZE = (16, 24)
"""Height and width of the collection's tokens' images: not square, so that mixing them up shows."""
BATCH_SIZE = 8

Sample = tuple[str, dict[str, bytes]]


# --- the collection ---------------------------------------------------------------------------------------


def patches(seed: int, width: int = 40, height: int = 32, mode: str = "RGB") -> Image.Image:
    """Coloured patches, another picture for every seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST).convert(mode)


def jpeg(seed: int, width: int = 40, height: int = 32, mode: str = "RGB") -> bytes:
    """A JPEG file, another picture for every seed."""
    return encoded(patches(seed, width, height, mode), "JPEG", quality=90)


def good_samples(first: int, count: int) -> list[Sample]:
    """Samples of several sizes; every third has an empty caption, every third one has none."""
    samples: list[Sample] = []
    for seed in range(first, first + count):
        members = {"jpg": jpeg(seed, 24 + seed % 30, 20 + seed % 17), "cls": str(seed % 10).encode()}
        if seed % 3:
            members["txt"] = b"" if seed % 3 == 1 else f"number {seed}, größer".encode()
        samples.append((f"{seed:06d}", members))
    return samples


def sixteen_bit_png() -> bytes:
    """A grey PNG of 16 bits."""
    values = np.linspace(0, 65535, 32 * 40).astype(np.uint16).reshape(32, 40)
    return encoded(Image.fromarray(values), "PNG")


MIXED: dict[str, tuple[dict[str, bytes], str]] = {
    "grey": ({"jpg": jpeg(900, mode="L"), "cls": b"1"}, ""),
    "cmyk": ({"jpg": jpeg(901, mode="CMYK"), "cls": b"1"}, ""),
    "png16": ({"png": sixteen_bit_png(), "cls": b"1"}, ""),
    "palette": ({"png": encoded(patches(902).quantize(16), "PNG"), "cls": b"1"}, ""),
    "alpha": ({"png": encoded(patches(903, mode="RGBA"), "PNG"), "cls": b"1"}, ""),
    "onepixel": ({"png": encoded(patches(904, 1, 1), "PNG"), "cls": b"1"}, ""),
    "no-label": ({"jpg": jpeg(905)}, ""),
    "with": ({"v1.0.jpg": jpeg(906), "cls": b" 7\n"}, ""),
    "folder/nested": ({"jpg": jpeg(907), "cls": b"2"}, ""),
    "cut": ({"jpg": jpeg(908)[:300], "cls": b"1"}, "decode"),
    "text": ({"jpg": b"this is not an image", "cls": b"1"}, "decode"),
    "empty": ({"jpg": b"", "cls": b"1"}, "decode"),
    "huge": ({"png": encoded(Image.new("L", (400, 400)), "PNG"), "cls": b"1"}, "decode"),
    "no-image": ({"cls": b"1", "txt": b"alone"}, "select"),
    "two-images": ({"jpg": jpeg(909), "png": encoded(patches(909), "PNG"), "cls": b"1"}, "select"),
    "bad-label": ({"jpg": jpeg(910), "cls": b"cat"}, "label"),
    "last": ({"jpg": jpeg(911), "cls": b"3"}, ""),
}
"""Samples by key, and the stage at which each is rejected; `` for those that become rows."""

COLLECTION: dict[str, list[Sample]] = {
    "train-0000.tar": good_samples(0, 20),
    "train-0001.tar": good_samples(100, 5),
    "train-0002.tar": [],
    "train-0003.tar": [(key, members) for key, (members, _) in MIXED.items()],
    "more/train-0000.tar": good_samples(200, 11),
    "more/train-0004.tar": good_samples(300, 16),
}
"""Samples of every source shard, by path: an empty one, the same name in two folders, whole and broken batches."""

REJECTED = {key: stage for key, (_, stage) in MIXED.items() if stage}
ROWS = sum(len(samples) for samples in COLLECTION.values()) - len(REJECTED)


def write_shard(path: Path, samples: Iterable[Sample]) -> Path:
    """A source shard, the same bytes for the same samples."""
    return write_tar(path, [(f"{key}.{name}", data) for key, members in samples for name, data in members.items()])


def save_tiny_tokenizer(folder: Path, seed: int = 0) -> Path:
    """A tokenizer of random weights that uses all of its 16 codes."""
    torch.manual_seed(seed)
    model = SimpleVQVAE(vocab_size=16, embedding_dim=4, hidden_dim=8, final_relu=False).eval()
    with torch.no_grad():
        vectors = model.encode(torch.rand(16, 3, 16, 16) * 2 - 1).permute(0, 2, 3, 1).reshape(-1, 4)
        model.quantize.embedding.weight.copy_(vectors[::16])
    save_tokenizer(folder, model, Normalization())
    return folder


@dataclass(frozen=True)
class Job:
    """A configuration file, and where its things lie."""

    file: Path
    source: Path
    tokenizer: Path
    store: Path

    def config(self, *overrides: str) -> Config:
        """The configuration, with `section.key=value` overrides."""
        return load_config(self.file, overrides)

    def run(self, *overrides: str, **options: Any) -> tokenize.TokenizeResult:
        """Tokenize in this process."""
        return tokenize.run(self.config(*overrides), show_progress=False, **options)

    def start(self, *arguments: str, **options: Any) -> "Child":
        """`vqtok tokenize` in a process of its own; `options` of Child."""
        return vqtok("tokenize", "--no-progress", "--config", self.file, *arguments, folder=self.output, **options)

    @property
    def output(self) -> Path:
        """Where processes leave what they print."""
        return self.file.parent / "output"

    @property
    def digest(self) -> str:
        """Content digest of the store, from its manifest."""
        return str(json.loads((self.store / "manifest.json").read_text())["content_digest"])

    @property
    def commits(self) -> dict[str, dict[str, Any]]:
        """Commit records as they are on disk, by the path of their source shard."""
        records = [json.loads(path.read_text()) for path in (self.store / "commits").glob("*.json")]
        return {record["sources"][0]["path"]: record for record in records}

    def listing(self, folder: str) -> list[str]:
        """Names in a folder of the store, sorted; none where there is no folder."""
        return sorted(path.name for path in (self.store / folder).glob("*"))


def make_job(folder: Path, source: Path, tokenizer: Path, changes: Mapping[str, Any] | None = None) -> Job:
    """A configuration of the collection at `source` with its store in `folder`; `changes` by `section.key`."""
    tree: dict[str, dict[str, Any]] = {
        "source": {
            "shards": [f"{source}/train-*.tar", f"{source}/more/train-*.tar"],
            "base": str(source),
            "keep": ["txt"],
        },
        "image": {"size": list(IMAGE_SIZE), "max_pixels": 100_000},
        "tokenizer": {"path": str(tokenizer)},
        "tokenize": {"store": str(folder / "store"), "batch_size": BATCH_SIZE},
    }
    for name, value in (changes or {}).items():
        section, key = name.split(".")
        tree[section][key] = value
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(tree))
    return Job(file, source, tokenizer, folder / "store")


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of COLLECTION. Read only: use `copied` to change it."""
    folder = tmp_path_factory.mktemp("collection")
    for path, samples in COLLECTION.items():
        write_shard(folder / path, samples)
    return folder


@pytest.fixture
def copied(collection: Path, tmp_path: Path) -> Path:
    """A copy of the collection that a test may damage."""
    return Path(shutil.copytree(collection, tmp_path / "copied"))


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tokenizer."""
    return save_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def job(collection: Path, tokenizer_folder: Path, tmp_path: Path) -> Job:
    """A job over the collection that nobody has begun."""
    return make_job(tmp_path / "job", collection, tokenizer_folder)


@pytest.fixture(scope="session")
def finished(collection: Path, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished job over the collection. Read only: use `damageable` to change its store."""
    job = make_job(tmp_path_factory.mktemp("finished"), collection, tokenizer_folder)
    assert job.run().complete
    return job


@pytest.fixture
def damageable(finished: Job, copied: Path, tmp_path: Path) -> Job:
    """A finished job whose store and source a test may damage."""
    job = make_job(tmp_path / "damageable", copied, finished.tokenizer)
    shutil.copytree(finished.store, job.store)
    return job


# --- stores of given rows, without a tokenizer ------------------------------------------------------------


def make_birth(
    vocab_size: int = 16,
    block_lengths: Sequence[int] = (3, 5),
    fields: Sequence[str] = (),
    codec: str = "lz4",
    table: np.ndarray | None = None,
    **changes: Any,
) -> Birth:
    """The birth of a store of nobody's tokens."""
    return Birth.model_validate(
        {
            "features": (DIGESTS,),
            "identity": {"tokenizer": {"weights": "none"}, "layout": "invented"},
            "geometry": Geometry(
                image_size=(4, 4 * sum(block_lengths)),
                grid=(1, sum(block_lengths)),
                layout="invented",
                block_lengths=tuple(block_lengths),
                decodable=True,
            ),
            "codebook": CodebookRecord(
                kind="table" if table is not None else "implicit",
                vocab_size=vocab_size,
                embedding_dim=2,
                sha256=None if table is None else table_digest(table),
            ),
            "var_input": "lookup",
            "token_dtype": smallest_token_dtype(vocab_size),
            "fields": tuple(fields),
            "codec": codec,
            **changes,
        }
    )


def make_shard(
    birth: Birth, part: str, rows: int, fields: dict[str, list[bytes | None]] | None = None, rejects: int = 0
) -> EncodedShard:
    """Random tokens, among them the smallest and the largest; the same ones for the same part name."""
    random = np.random.default_rng(list(part.encode()))
    vocab_size = birth.codebook.vocab_size
    tokens = random.integers(0, vocab_size, (rows, *birth.row_shape)).astype(birth.token_dtype)
    if rows:
        tokens.reshape(-1)[[0, -1]] = vocab_size - 1, 0
    return EncodedShard(
        part=part,
        sources=(SourceRecord(path=f"{part}.tar", bytes=10, sha256="0" * 64),),
        tokens=tokens,
        keys=[f"{part}/{row}-ü" for row in range(rows)],
        labels=[row % 7 - 1 for row in range(rows)],
        fields=fields or {},
        rejects=[Reject(key=f"bad{i}", index=rows + i, stage="decode", reason="broken") for i in range(rejects)],
        ignored=[],
        execution={"precision": "fp32"},
        seconds={"encode": 0.5},
        views=None
        if birth.views is None
        else Views(random.integers(0, 99, (rows, birth.views, 4)), random.integers(0, 2, (rows, birth.views))),
    )


def begin_store(folder: Path, birth: Birth, table: np.ndarray | None = None) -> LocalFiles:
    """A store without parts."""
    files = LocalFiles(folder)
    create_or_compare(files, birth)
    prepare_hierarchy(files, birth, table)
    return files


def finish_store(files: LocalFiles, birth: Birth, generation: int = 1) -> None:
    """Write the manifest of all that is committed."""
    parts = sorted(committed_parts(files))
    commits = read_commits(files, parts)
    made = make_manifest(commits, parts, birth.codebook.vocab_size, generation, read_manifest(files, birth))
    write_manifest(files, birth, made)


def store_of_rows(folder: Path, counts: Sequence[int], table: np.ndarray | None = None, **options: Any) -> Path:
    """A finished store with parts of so many rows."""
    birth = make_birth(table=table, **options)
    files = begin_store(folder, birth, table)
    for number, rows in enumerate(counts):
        commit_part(files, birth, make_shard(birth, f"part{number:03d}", rows))
    finish_store(files, birth)
    return folder


def store_of_keys(
    folder: Path, parts: dict[str, list[str]], fields: dict[str, list[bytes | None]] | None = None
) -> Path:
    """A finished store of parts whose rows have these keys, with one reject each."""
    birth = make_birth(fields=sorted(fields or {}))
    files = begin_store(folder, birth)
    for part, keys in parts.items():
        shard = make_shard(birth, part, len(keys), fields, rejects=1)
        shard.keys[:] = keys
        commit_part(files, birth, shard)
    finish_store(files, birth)
    return folder


def store_of_fields(folder: Path, parts: Sequence[dict[str, list[bytes | None]]], **options: Any) -> Path:
    """A finished store of parts whose rows have these kept members."""
    birth = make_birth(fields=sorted(parts[0]), **options)
    files = begin_store(folder, birth)
    for number, fields in enumerate(parts):
        rows = len(next(iter(fields.values())))
        commit_part(files, birth, make_shard(birth, f"part{number:03d}", rows, fields))
    finish_store(files, birth)
    return folder


def all_files(folder: Path) -> dict[str, bytes]:
    """Contents of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# --- processes --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Halt:
    """Where a process signals itself: before the n-th operating system call of a kind on a path."""

    event: str
    """Audit event, such as `os.link` or `os.rename`: https://docs.python.org/3/library/audit_events.html."""
    fragment: str
    """Part of any of its paths."""
    count: int = 1
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Done:
    """A process that has ended."""

    status: int
    """Exit status, -N after signal N."""
    out: str
    err: str


_M_ARENA_MAX = -8
"""mallopt(3)."""

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(
    [
        "pytest",
        "yaml",
        "PIL.Image",
        "accelerate",
        "torch._dynamo",  # the first optimizer of a process loads it, which takes longer than a small training
        "torch.utils.tensorboard",
        "pipeline.cli",
        "pipeline.jobs.tokenizing.job",
        "pipeline.jobs.verifying.contents",
        "pipeline.jobs.reporting.making",
        "pipeline.jobs.training.loop",
    ]
)

# A start polls all processes, and of two threads that poll one process, one loses its exit status.
_polling = threading.Lock()


class Child:
    """A real process that calls a function; it starts at once, for torch is imported already."""

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: Any,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        file_bytes: int | None = None,
        more_memory: int | None = None,
        halt: Halt | Sequence[Halt] = (),
    ) -> None:
        """`file_bytes` limits every file, `more_memory` the address space beyond what it has at its start."""
        halts = (halt,) if isinstance(halt, Halt) else tuple(halt)
        limits = {resource.RLIMIT_FSIZE: file_bytes, resource.RLIMIT_AS: more_memory}
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("out-*")))
        self._out, self._err = folder / f"out-{number}", folder / f"err-{number}"
        self._out.touch()
        self._err.touch()
        self._process: ForkServerProcess = _forkserver.Process(
            target=_enter,
            args=(function, arguments, str(self._out), str(self._err), dict(environment or {}), limits, halts),
        )
        with _polling:
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_until_stopped(self, timeout_s: float = 60) -> None:
        """Until it has halted with SIGSTOP."""
        wait_for(lambda: self._state() in "TZ", timeout_s)
        assert self._state() == "T", self._err.read_text()

    def wait(self, timeout_s: float = 120) -> Done:
        """Until it has ended."""
        multiprocessing.connection.wait([self._process.sentinel], timeout_s)
        with _polling:
            late = self._process.exitcode is None
            if late:
                self.signal(signal.SIGABRT)  # it prints where its threads are
                self._process.join(10)
                self._process.kill()
            self._process.join()
            status = self._process.exitcode
        if late or status is None:
            raise AssertionError(f"still running after {timeout_s} s: {self._err.read_text()}")
        return Done(status, self._out.read_text(), self._err.read_text())

    @property
    def running(self) -> bool:
        """Whether it has not ended; halted is running."""
        with _polling:
            return self._process.exitcode is None

    def _state(self) -> str:
        try:
            return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return "Z"


CPU = {"ACCELERATE_USE_CPU": "true"}
"""The environment of a process that is to leave a GPU alone."""


def vqtok(*arguments: str | Path, folder: Path, **options: Any) -> Child:
    """The command in a process of its own; `options` of Child."""
    return Child(_command, [str(argument) for argument in arguments], folder=folder, **options)


def cold(
    *command: str | Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout_s: float = 200,
) -> Done:
    """A process started by the operating system, to its end; in a working folder."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **(environment or {})},
        cwd=folder,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def cold_python(code: str, *arguments: str | Path, options: Sequence[str] = ()) -> Done:
    """Python code in a process started by the operating system."""
    return cold(sys.executable, *options, "-c", code, *arguments)


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Poll a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def _command(arguments: list[str]) -> None:
    from pipeline.cli import main

    sys.argv = ["vqtok", *arguments]
    main()


def _enter(
    function: Callable[..., object],
    arguments: Sequence[Any],
    out: str,
    err: str,
    environment: dict[str, str],
    limits: dict[int, int | None],
    halts: Sequence[Halt],
) -> None:
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.update(environment)
    faulthandler.enable(2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    for limit, size in limits.items():
        if size is not None:
            had = _address_space() if limit == resource.RLIMIT_AS else 0
            resource.setrlimit(limit, (had + size, resource.RLIM_INFINITY))
    if limits[resource.RLIMIT_AS] is not None:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)  # or each thread's heap would reserve 64 MiB of it
    for halt in halts:
        sys.addaudithook(_halting(halt))
    function(*arguments)


def _address_space() -> int:
    """Bytes of this process's address space, proc(5)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _halting(halt: Halt) -> Callable[[str, tuple[Any, ...]], None]:
    left = halt.count

    def hook(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        if halt.event in (event, "any") and any(halt.fragment in str(detail) for detail in details):
            left -= 1
            if left == 0:
                signal.pthread_kill(threading.get_ident(), halt.signal)  # not a step further in this thread

    return hook
