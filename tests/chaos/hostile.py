"""Hostile stores and tokenizers, read: no code runs, nothing outside of them changes, nothing hangs or eats the memory.

`python -m chaos.hostile` makes and reads thousands. What a forged store answers is what its author wanted; what it may
not do is said in `docs/security.md`. Each is read by a process of its own, forked from one that has imported
everything. Its exit status is 0 only when there was no signal, no process that hung, no exception but the package's own
and the system's, no large growth of memory, and no change to what lies outside.
"""

import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
import torch
from fixtures_store import Job, all_files, make_job, save_tiny_tokenizer, write_shard
from support import in_a_fork

import chaos.fuzz  # imports what commands import when they are called
from chaos.damages import linked
from chaos.forgeries import STORES, TOKENIZERS, Forgery, make_outside
from chaos.matrix import COLLECTION
from chaos.readings import QUESTIONS, Reading
from pipeline.errors import VqtokError
from pipeline.models.networks.vqgan.architecture import Architecture, Coder
from pipeline.models.networks.vqgan.model import Vqgan
from pipeline.models.tokenizers.registry import load_tokenizer, tokenizer_identity
from pipeline.models.tokenizers.vqtok import save_tokenizer
from pipeline.records import Normalization
from pipeline.store import TokenStore

LIMIT_S = chaos.fuzz.LIMIT_S
MOST_BYTES = 1 << 30
"""By which a reading may grow: a sound one takes a tenth of it."""
KINDS = {"store": STORES, "tokenizer": TOKENIZERS}


@dataclass(frozen=True)
class Sound:
    """A finished job, and tokenizers of both of our networks."""

    job: Job
    tokenizers: tuple[Path, ...]


def make_sound(folder: Path) -> Sound:
    """In a fork, so that no thread is left here."""
    source = folder / "source"
    for path, samples in COLLECTION.items():
        write_shard(source / path, samples)
    job = make_job(folder / "sound", source, folder / "tokenizer")
    tokenizers = folder / "tokenizer", folder / "scales"
    assert in_a_fork(_make, job, tokenizers) == (0, [None])
    return Sound(job, tokenizers)


def _make(job: Job, tokenizers: Sequence[Path]) -> None:
    save_tiny_tokenizer(tokenizers[0])
    assert job.run().complete
    coder = Coder(widths=(32, 32), depth=1, attention=(False, False), middle_attention=False)
    architecture = Architecture(
        encoder=coder, decoder=coder, stem=32, latent=8, quant_kernel=1, vocab_size=16, embedding_dim=4
    )
    network = Vqgan(architecture, patch_nums=(1, 2, 4), phis=2)
    save_tokenizer(tokenizers[1], network.eval(), Normalization())


@dataclass
class Outcome:
    """What came of one."""

    what: str
    """`store` or `tokenizer`, and the kind of forgery."""
    refused: int = 0
    answered: int = 0
    problems: list[str] = field(default_factory=list)


def run_case(number: int, sound: Sound, folder: Path) -> Outcome:
    """Forge a copy, and read it in a fork of this process. The same number is the same case."""
    draw = random.Random(f"forgery {number}")
    thing = draw.choice(sorted(KINDS))
    kind = draw.choice(sorted(KINDS[thing]))
    outcome = Outcome(f"{thing}: {kind}")
    outside = make_outside(folder / "outside")
    forged = linked(sound.job.store if thing == "store" else draw.choice(sound.tokenizers), folder / thing)
    said = _forge(KINDS[thing][kind], forged, outside, draw)
    before, inside = all_files(outside), _markers(folder)
    read = _read_store if thing == "store" else _read_tokenizer
    try:
        status, returned = in_a_fork(_measured, read, sound, forged, timeout_s=LIMIT_S)
    except AssertionError:
        status, returned = None, []
        outcome.problems.append(f"still at it after {LIMIT_S:.0f} s")
    else:
        if not returned:
            outcome.problems.append(f"the process ended with status {status}")
    for reading, grown in returned:
        outcome.refused, outcome.answered = reading.refused, reading.right
        outcome.problems += reading.problems
        if grown > MOST_BYTES:
            outcome.problems.append(f"took {grown:,} bytes")
    if all_files(outside) != before:
        outcome.problems.append("files elsewhere are others")
    if _markers(folder) != inside:
        outcome.problems.append("code ran")
    outcome.problems = [f"case {number}, {outcome.what}, {said}: {problem}" for problem in outcome.problems]
    return outcome


def _forge(forgery: Forgery, folder: Path, outside: Path, draw: random.Random) -> str:
    return forgery(folder, outside, draw)


def _markers(folder: Path) -> list[Path]:
    """Files that code leaves."""
    return sorted(folder.rglob("ran"))


def _measured(read: Callable[[Sound, Path], Reading], sound: Sound, forged: Path) -> tuple[Reading, int]:
    """A reading, and by how many bytes the process has grown meanwhile."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reading = read(sound, forged)
    return reading, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


class _Forged(Reading):
    """A reading in which any answer is right, for nobody knows the author's; refusals may be the system's."""

    def ask(self, name: str, question: Callable[[], object], expected: object = None) -> None:
        try:
            question()
        except (VqtokError, OSError):
            self.refused += 1
        except BaseException as error:
            self.problems.append(f"{name}: {type(error).__name__}: {error}"[:500])
        else:
            self.right += 1


def _read_store(sound: Sound, store: Path) -> Reading:
    reading = _Forged()
    for partial in (False, True):
        opened: list[TokenStore] = []
        reading.ask("opening", lambda opened=opened, partial=partial: opened.append(TokenStore(store, partial=partial)))
        for found in opened:
            for name, question in QUESTIONS.items():
                reading.ask(name, lambda question=question, found=found: question(found))
            reading.ask("grids", lambda found=found: found.read([0]).grid)
            reading.ask("counts", lambda found=found: np.sum(found.code_counts))
    options = (
        "--config",
        str(sound.job.file),
        "--set",
        f"tokenize.store={store}",
        "--set",
        "tokenize.claim_timeout=0.4",
    )
    reading.command("status", "--json", *options)
    reading.command("verify", "--quick", *options)
    reading.command("verify", *options)
    reading.command("show", str(store), "000003", "--json")
    reading.command("clean", "--json", *options)
    reading.command("report", *options)
    reading.command("export", str(store), str(store.with_name("export")), "--format", "npy")
    reading.command("tokenize", "--no-progress", *options)
    reading.command("clean", "--json", *options)
    return reading


def _read_tokenizer(sound: Sound, folder: Path) -> Reading:
    reading = _Forged()
    reading.ask("identity", lambda: tokenizer_identity(folder))
    reading.ask("loading", lambda: load_tokenizer(folder).encode(torch.zeros(1, 3, 16, 16)))
    options = ("--config", str(sound.job.file), "--set", f"tokenizer.path={folder}")
    reading.command("status", "--json", *options)
    reading.command("tokenize", "--no-progress", *options, "--set", f"tokenize.store={folder.with_name('store')}")
    return reading


def run_cases(numbers: Iterable[int], sound: Sound, folder: Path) -> Iterator[Outcome]:
    """One after the other."""
    for number in numbers:
        place = folder / f"case-{number:05d}"
        try:
            yield run_case(number, sound, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def table(outcomes: Sequence[Outcome]) -> str:
    """What became of them, by kind, as Markdown."""
    lines = ["| forged | cases | refused | answered | problems |", "| --- | ---: | ---: | ---: | ---: |"]
    for what in [*sorted({outcome.what for outcome in outcomes}), "total"]:
        rows = [outcome for outcome in outcomes if what in (outcome.what, "total")]
        refused, answered = sum(row.refused for row in rows), sum(row.answered for row in rows)
        lines.append(
            f"| {what} | {len(rows):,} | {refused:,} | {answered:,} | {sum(len(row.problems) for row in rows)} |"
        )
    return "\n".join(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cases", type=click.IntRange(1), default=2_000, show_default=True, help="Forgeries.")
@click.option("--first", type=int, default=0, show_default=True, help="Number of the first one, its seed.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table there too.")
def main(cases: int, first: int, markdown: Path | None) -> None:
    """Make hostile stores and tokenizers, and read them."""
    folder, started = Path(tempfile.mkdtemp(prefix="vqtok-hostile-")), time.monotonic()
    sound, outcomes = make_sound(folder), []
    for outcome in run_cases(range(first, first + cases), sound, folder):
        outcomes.append(outcome)
        for problem in outcome.problems:
            click.echo(problem, err=True)
    shutil.rmtree(folder)
    problems = sum(len(outcome.problems) for outcome in outcomes)
    text = f"{table(outcomes)}\n\n{problems} problems; {time.monotonic() - started:,.0f} s; from number {first} on"
    click.echo(text)
    if markdown:
        markdown.write_text(text + "\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
