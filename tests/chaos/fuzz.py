"""Damaged stores, read back: every answer is right, or a refusal that names a file.

`python -m chaos.fuzz` takes some ten minutes on two cores for 10,000 damages. Each is read by a process of its own,
forked from one that has imported everything. Its exit status is 0 only when there was no wrong value, no signal, no
process that hung, no exception but the package's own, and no damage that `vqtok verify` missed.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
from fixtures_store import Job, all_files, good_samples, make_job, save_tiny_tokenizer, write_shard
from support import in_a_fork
from tqdm import tqdm

from chaos import damages, readings
from chaos.damages import Damage, kind_of_file
from chaos.matrix import COLLECTION
from chaos.readings import Contents, Reading
from pipeline.store import TokenStore
from pipeline.store.arrays import storage
from pipeline.store.cache.parts import PartCache

# What commands import when they are called: the forked processes have it already.
for module in (
    "numpy.ma",
    "pipeline.jobs.clean",
    "pipeline.jobs.reporting.making",
    "pipeline.jobs.showing.text",
    "pipeline.jobs.status.table",
    "pipeline.jobs.tokenizing.command",
    "pipeline.jobs.verifying.reencoding",
):
    import_module(module)

LIMIT_S = 120.0
"""Of one reading. It takes a tenth of a second; the machine may be busy."""
PLACES = ("local", "objects", "cache")
VARIANTS = tuple((codec, chunk_bytes) for codec in ("lz4", "raw") for chunk_bytes in (storage.CHUNK_BYTES, 100))
"""Codecs, and bytes of a chunk: one for each array, or several."""
# Of all cases on a local disk, one in so many also runs the commands that take their time.
_COMMANDS = 4
# What no record speaks of.
_NOT_COMMITTED = ("claim", "note of a failure")
# What `vqtok verify --quick` finds whatever its damage; of other files it compares the sizes.
_RECORDS = ("store.json", "manifest.json", "commit record", "codebook", "log of a folder", "files of a part")
_FOLDERS = {"pictures": good_samples(40, 3), "more/pictures": good_samples(50, 2)}


@dataclass(frozen=True)
class Sound:
    """A store to damage, and what it holds."""

    job: Job
    chunk_bytes: int
    cache: Path
    """Copies of all its files."""
    contents: Contents
    other: Path
    """A store of the same keys and other tokens."""


def make_sound(folder: Path, codec: str, chunk_bytes: int) -> Sound:
    """Tokenize the tars of the kill matrix, and two folders, in forks, so that no thread is left here: readings are
    forks, too."""
    source = folder / "source"
    for path, samples in COLLECTION.items():
        write_shard(source / path, samples)
    for path, samples in _FOLDERS.items():
        (source / path).mkdir()
        for key, members in samples:
            for name, data in members.items():
                (source / path / f"{key}.{name}").write_bytes(data)
    shards = [f"{source}/{name}" for name in ("train-*.tar", "more/train-*.tar", *_FOLDERS)]
    changes = {"tokenize.codec": codec, "source.shards": shards}
    jobs = [
        make_job(folder / name, source, save_tiny_tokenizer(folder / f"{name}-tokenizer", seed), changes)
        for seed, name in enumerate(("sound", "other"))
    ]
    for job in jobs:
        assert in_a_fork(_tokenize, job, chunk_bytes) == (0, [None])
    _, (contents,) = in_a_fork(_contents, jobs[0].store, folder / "cache", chunk_bytes)
    return Sound(jobs[0], chunk_bytes, folder / "cache", contents, jobs[1].store)


def _tokenize(job: Job, chunk_bytes: int) -> None:
    storage.CHUNK_BYTES = chunk_bytes
    assert job.run().complete
    part = next((job.store / "commits").iterdir()).stem
    for name, record in (("claims", _CLAIM), ("failures", _FAILURE)):
        (job.store / name).mkdir(exist_ok=True)
        (job.store / name / f"{part}.json").write_text(json.dumps({"part": part, **record}, indent=1))


_CLAIM = {"token": "0", "host": "elsewhere", "boot_id": "0", "pid_namespace": "0", "pid": 1, "pid_started": 1}
_FAILURE = {"source": "train-0000.tar", "reason": "cut", "host": "elsewhere", "time": "2026-01-01T00:00:00+00:00"}


def _contents(store: Path, cache: Path, chunk_bytes: int) -> Contents:
    storage.CHUNK_BYTES = chunk_bytes
    readings.contents_of(TokenStore(store, cache=PartCache(cache, 1 << 30)))
    return readings.contents_of(TokenStore(store))


@dataclass(frozen=True)
class Case:
    """One damage to one store, and how it is read."""

    number: int
    place: str
    sound: Sound
    in_cache: bool
    """Whether the copies in the cache are damaged, not the store."""
    with_commands: bool

    @property
    def draw(self) -> random.Random:
        return random.Random(self.number)


@dataclass
class Outcome:
    """What came of it."""

    what: str
    """The kind of file."""
    damage: str
    place: str
    right: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)


def draw_case(number: int, sounds: Sequence[Sound], places: Sequence[str]) -> Case:
    """The case of this number, always the same for the same stores and places."""
    draw = random.Random(f"case {number}")
    place = draw.choice(places)
    return Case(
        number,
        place,
        draw.choice(sounds),
        in_cache=place == "cache" and draw.random() < 0.75,
        with_commands=place == "local" and draw.randrange(_COMMANDS) == 0,
    )


def run_case(case: Case, folder: Path) -> Outcome:
    """Damage a copy, and read it in a fork of this process."""
    draw, sound, of = case.draw, case.sound, _kind_in_cache if case.in_cache else kind_of_file
    damaged = damages.linked(sound.cache if case.in_cache else sound.job.store, folder / "damaged")
    kinds = damages.OF_OBJECTS if case.place == "objects" else damages.KINDS
    damage = damages.draw_damage(all_files(damaged), draw.choice(kinds), of, draw)
    differs = damages.do(damage, damaged, [sound.other], draw)
    outcome = Outcome(of(damage.path), damage.kind, case.place)
    try:
        status, returned = in_a_fork(_read, case, damaged, damage, differs, timeout_s=LIMIT_S)
    except AssertionError:
        outcome.problems.append(f"still at it after {LIMIT_S:.0f} s")
        return outcome
    if not returned:
        outcome.problems.append(f"the process ended with status {status}")
    for reading in returned:
        outcome.right, outcome.refused, outcome.problems = reading.right, reading.refused, reading.problems
    outcome.problems = [f"case {case.number}, {case.place}, {damage}: {problem}" for problem in outcome.problems]
    return outcome


def _kind_in_cache(path: str) -> str:
    return "copy in a cache" if path.endswith(".file") else "ledger of a cache"


def _read(case: Case, damaged: Path, damage: Damage, differs: bool) -> Reading:
    """Everything there is to ask, in a process that ends afterwards."""
    storage.CHUNK_BYTES = case.sound.chunk_bytes
    reading, expected = Reading(), case.sound.contents
    match case.place:
        case "objects":
            with readings.folders_as_object_stores():
                reading.read(lambda: TokenStore(f"file://{damaged}"), expected)
        case "cache":
            # Names of copies depend on the place of the store.
            store, folder = (case.sound.job.store, damaged) if case.in_cache else (damaged, damaged.with_name("cache"))
            reading.read(lambda: TokenStore(store, cache=PartCache(folder, 1 << 30, threads=1)), expected)
        case _:
            reading.read(lambda: TokenStore(damaged), expected)
            if damage.kind != "deletion" or kind_of_file(damage.path) != "commit record":  # then it has one part less
                reading.read(lambda: TokenStore(damaged, partial=True, check="always"), expected)
            _run_commands(reading, case, damaged, damage, differs)
    return reading


def _run_commands(reading: Reading, case: Case, store: Path, damage: Damage, differs: bool) -> None:
    job, what = case.sound.job, kind_of_file(damage.path)
    options = ("--config", str(job.file), "--set", f"tokenize.store={store}", "--set", "tokenize.claim_timeout=0.4")
    reading.command("status", "--json", *options)
    committed = differs and what not in _NOT_COMMITTED and not _is_equivalent(case, store, damage.path)
    must_find = committed and (what in _RECORDS or _other_size(case, store, damage.path))
    _verify(reading, "--quick", *options, must_find=must_find)
    if not case.with_commands:
        return
    _verify(reading, *options, must_find=committed)
    reading.command("show", str(store), "000003", "--json")
    reading.command("clean", "--json", *options)
    reading.command("report", *options)
    exit_status, _ = reading.command("tokenize", "--no-progress", *options)
    reading.read(lambda: TokenStore(store), case.sound.contents)
    if exit_status == 0:
        reading.command("status", *options)


def _is_equivalent(case: Case, store: Path, path: str) -> bool:
    """Whether it is metadata that no record speaks of, and that say the same in other words."""
    try:
        return path.endswith("/zarr.json") and json.loads((store / path).read_bytes()) == json.loads(
            (case.sound.job.store / path).read_bytes()
        )
    except (OSError, ValueError):
        return False


def _other_size(case: Case, store: Path, path: str) -> bool:
    there = store / path
    return not there.is_file() or there.stat().st_size != (case.sound.job.store / path).stat().st_size


def _verify(reading: Reading, *options: str, must_find: bool) -> None:
    exit_status, output = reading.command("verify", *options)
    if must_find and exit_status == 0:
        reading.problems.append(f"verify {options[0]}: found nothing: {output}")


def run_cases(cases: Iterable[Case], folder: Path) -> Iterator[Outcome]:
    """One after the other."""
    for case in cases:
        place = folder / f"case-{case.number:05d}"
        try:
            yield run_case(case, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)


_shared: list[Sound] = []
"""What forked workers find."""


def _run_some(numbers: Sequence[int], places: Sequence[str], folder: Path) -> list[Outcome]:
    return list(run_cases((draw_case(number, _shared, places) for number in numbers), folder))


def table(outcomes: Sequence[Outcome]) -> str:
    """What became of the answers, by kind of file, as Markdown."""
    lines = [
        "| damaged | damages | answers | right | refused | problems |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for what in [*sorted({outcome.what for outcome in outcomes}), "total"]:
        rows = [outcome for outcome in outcomes if what in (outcome.what, "total")]
        right, refused = sum(row.right for row in rows), sum(row.refused for row in rows)
        problems = sum(len(row.problems) for row in rows)
        lines.append(f"| {what} | {len(rows):,} | {right + refused:,} | {right:,} | {refused:,} | {problems} |")
    return "\n".join(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cases", type=click.IntRange(1), default=10_000, show_default=True, help="Damages.")
@click.option("--first", type=int, default=0, show_default=True, help="Number of the first one, its seed.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="At a time.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table there too.")
def main(cases: int, first: int, jobs: int, markdown: Path | None) -> None:
    """Damage stores in every way, read them back, and look for wrong values and unclear ends.

    Ctrl-C ends it early, with the table of what was done.
    """
    folder, started = Path(tempfile.mkdtemp(prefix="vqtok-fuzz-")), time.monotonic()
    _shared[:] = [make_sound(folder / f"{codec}-{size}", codec, size) for codec, size in VARIANTS]
    lots = [range(start, min(start + 20, first + cases)) for start in range(first, first + cases, 20)]
    outcomes, interrupted = [], False
    with (
        ProcessPoolExecutor(jobs, get_context("fork"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool,
        tqdm(total=cases, unit=" damages", mininterval=0.5 if sys.stderr.isatty() else 30) as bar,
    ):
        tasks = [pool.submit(_run_some, lot, PLACES, folder) for lot in lots]
        try:
            for task in as_completed(tasks):
                outcomes += task.result()
                bar.update(len(task.result()))
                for problem in (problem for outcome in task.result() for problem in outcome.problems):
                    tqdm.write(problem, file=sys.stderr)
        except KeyboardInterrupt:  # ends it after what is in work
            interrupted = True
            pool.shutdown(cancel_futures=True)
    shutil.rmtree(folder)
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    seconds = time.monotonic() - started
    text = f"{table(outcomes)}\n\n{len(problems)} problems; {seconds:,.0f} s; from number {first} on"
    click.echo(text)
    if markdown:
        markdown.write_text(text + "\n")
    sys.exit(1 if problems or interrupted else 0)


if __name__ == "__main__":
    main()
