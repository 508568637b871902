"""The kill matrix: a thousand kills of tokenizing processes, a resume after each, and what became of the samples.

Tars, a folder of images and a Parquet file are tokenized in one job. `python -m chaos` takes about twenty minutes on
two cores; TMPDIR says where its stores lie. Its exit status is 0 only when no key was lost or doubled, every store has
the content digest of an uninterrupted run, every step was met by a kill, and no process failed or hung.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click
from tqdm import tqdm

os.environ.setdefault("OMP_NUM_THREADS", "1")

from chaos import matrix
from chaos.matrix import Setting, Trial
from chaos.steps import Trigger

# A full `vqtok verify` of every so manieth store.
_VERIFIED = 20

Attempt = Callable[[Trial, random.Random], bool]
"""What befalls one store before it is resumed; returns whether it came to that."""


@dataclass(frozen=True)
class Case:
    """One store of the matrix."""

    row: str
    processes: int
    attempt: Attempt


@dataclass
class Row:
    """The stores of one kind."""

    kind: str
    processes: int
    stores: int = 0
    kills: int = 0
    seconds: float = 0.0
    lost: int = 0
    doubled: int = 0
    equal: int = 0
    """Stores with the content digest of the uninterrupted run."""
    missed: int = 0
    """Stores in which no process came to the step at which it was to be killed."""
    verified: int = 0
    """Stores that `vqtok verify` found whole."""
    problems: list[str] = field(default_factory=list)

    def add(self, trial: Trial, reached: bool, seconds: float) -> None:
        self.stores += 1
        self.kills += trial.kills
        self.seconds += seconds
        self.lost += trial.found.lost
        self.doubled += trial.found.doubled
        self.equal += trial.found.digests_equal
        self.missed += not reached
        self.verified += trial.verified
        self.problems += trial.found.problems

    @property
    def good(self) -> bool:
        return self.equal == self.stores and not (self.lost or self.doubled or self.missed or self.problems)


def plan(setting: Setting, folder: Path, kills: int, cold: int, draw: random.Random) -> list[Case]:
    """Stores for about `kills` kills of forked processes and `cold` of cold ones, in random order."""
    steps, beats = setting.triggers(), setting.heartbeat_triggers()
    cleanup = matrix.cleanup_triggers(setting, folder)
    scale = kills / 1000

    def some(triggers: Sequence[Trigger]) -> list[Trigger]:
        """All of them in a long run, an even choice in a short one."""
        return draw.sample(triggers, min(len(triggers), max(1, round(len(triggers) * scale))))

    def times(count: int) -> range:
        return range(max(1, round(count * scale)))

    def any_steps(count: int) -> list[Trigger]:
        return [replace(trigger, count=1) for trigger in draw.sample(steps, count)]

    cases = [_at_step(replace(trigger, count=draw.randint(1, trigger.count))) for trigger in some(steps)]
    cases += [_at_step(trigger, impatient=True) for trigger in some(beats)]
    cases += [_side_by_side(any_steps(2)) for _ in times(70)]
    cases += [_side_by_side(any_steps(3)) for _ in times(60)]
    cases += [_in_a_row(any_steps(3)) for _ in times(40)]
    late = matrix.losing_trigger(setting)
    cases += [_frozen("overtaken, killed as it cleans up", late, trigger) for trigger in some(cleanup)]
    cases += [_frozen("stopped, overtaken, killed", trigger, "kill") for _ in times(30) for trigger in any_steps(1)]
    cases += [_frozen("stopped, overtaken, continued", trigger, "thaw") for _ in times(30) for trigger in any_steps(1)]
    cases += [case for _ in times(25) for case in _moments()]
    cases += [_terminated(processes) for _ in times(10) for processes in (1, 2)]
    cases += [Case("cold process, random moment", 1, _cold(1, False)) for _ in range(cold)]
    cases += [Case("cold parent of two", 2, _cold(2, False)) for _ in range(cold // 5)]
    cases += [Case("cold parent and its two", 2, _cold(2, True)) for _ in range(cold // 5)]
    draw.shuffle(cases)
    return cases


def _at_step(trigger: Trigger, impatient: bool = False) -> Case:
    area = "heartbeats" if impatient else matrix.area_of(trigger.step)
    return Case(f"at every step: {area}", 1, lambda trial, _: matrix.at_step(trial, trigger, impatient))


def _side_by_side(triggers: list[Trigger]) -> Case:
    def attempt(trial: Trial, draw: random.Random) -> bool:
        matrix.at_steps(trial, triggers)
        return True  # the others may leave nothing to do

    return Case("each at a step of its own", len(triggers), attempt)


def _in_a_row(triggers: list[Trigger]) -> Case:
    def attempt(trial: Trial, draw: random.Random) -> bool:
        matrix.in_a_row(trial, triggers)
        return True

    return Case("resumes killed in a row", 1, attempt)


def _frozen(row: str, halt: Trigger, then: str | Trigger) -> Case:
    def attempt(trial: Trial, draw: random.Random) -> bool:
        matrix.frozen(trial, replace(halt, count=1), then)
        return trial.kills > 0 or not isinstance(then, Trigger)

    return Case(row, 2, attempt)


def _moments() -> Iterator[Case]:
    for processes in (1, 2, 3):
        yield _moment("random moment, one of them" if processes > 1 else "random moment", processes, False)
        if processes > 1:
            yield _moment("random moment, all of them", processes, True)


def _moment(row: str, processes: int, all_of_them: bool) -> Case:
    def attempt(trial: Trial, draw: random.Random) -> bool:
        matrix.at_moments(trial, processes, all_of_them, draw)
        return True

    return Case(row, processes, attempt)


def _terminated(processes: int) -> Case:
    def attempt(trial: Trial, draw: random.Random) -> bool:
        matrix.at_moments(trial, processes, True, draw, terminate=True)
        return True

    return Case("SIGTERM, then SIGKILL", processes, attempt)


def _cold(processes: int, group: bool) -> Attempt:
    def attempt(trial: Trial, draw: random.Random) -> bool:
        matrix.cold(trial, draw, processes, group)
        return True

    return attempt


class Matrix:
    """Runs cases, some at a time, and adds them up."""

    def __init__(self, setting: Setting, folder: Path, seed: int, jobs: int) -> None:
        self._setting, self._folder, self._seed, self._jobs = setting, folder, seed, jobs
        self._number = 0
        self.interrupted = False
        self.rows: dict[tuple[str, int], Row] = {}

    @property
    def kills(self) -> int:
        return sum(row.kills for row in self.rows.values())

    def run(self, cases: Sequence[Case]) -> None:
        """Ctrl-C ends it after the stores in work."""
        first, self._number = self._number, self._number + len(cases)
        with ThreadPoolExecutor(self._jobs) as pool, _progress(len(cases)) as bar:
            tasks = {pool.submit(self._run_case, first + number, case): case for number, case in enumerate(cases)}
            try:
                for task in as_completed(tasks):
                    self._add(tasks[task], *task.result())
                    bar.set_postfix_str(
                        f"{self.kills} kills, {sum(not row.good for row in self.rows.values())} bad rows"
                    )
                    bar.update()
            except KeyboardInterrupt:
                self.interrupted = True
                pool.shutdown(cancel_futures=True)

    def _run_case(self, number: int, case: Case) -> tuple[Trial, bool, float]:
        draw = random.Random(f"{self._seed}:{number}")
        started = time.monotonic()
        with matrix.trial_in(self._setting, self._folder / f"store-{number:05d}") as trial:
            reached = case.attempt(trial, draw)
            trial.resume(verify=number % _VERIFIED == 0)
        return trial, reached, time.monotonic() - started

    def _add(self, case: Case, trial: Trial, reached: bool, seconds: float) -> None:
        row = self.rows.setdefault((case.row, case.processes), Row(case.row, case.processes))
        row.add(trial, reached, seconds)
        for problem in trial.found.problems:
            tqdm.write(f"{case.row}, {trial.job.store}: {problem}", file=sys.stderr)


def _progress(total: int) -> "tqdm[None]":
    # A log file is not to be filled with bars.
    return tqdm(total=total, unit=" stores", mininterval=0.5 if sys.stderr.isatty() else 30, maxinterval=30)


def table(rows: Sequence[Row]) -> str:
    """The rows and their sum as Markdown."""
    lines = [
        "| kind of kill | processes | kills | seconds | lost | doubled | digests equal |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    total = Row("total", 0)
    for row in rows:
        for name in ("stores", "kills", "seconds", "lost", "doubled", "equal"):
            setattr(total, name, getattr(total, name) + getattr(row, name))
    lines += [
        f"| {row.kind} | {row.processes or ''} | {row.kills:,} | {row.seconds:,.0f} | {row.lost} | {row.doubled} "
        f"| {row.equal:,} of {row.stores:,} |"
        for row in [*rows, total]
    ]
    return "\n".join(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", type=click.IntRange(1), default=1000, show_default=True, help="At least so many, forked.")
@click.option("--cold", type=click.IntRange(0), default=20, show_default=True, help="Kills of cold processes beside.")
@click.option("--only", default="", metavar="WORDS", help="Only the rows of the table that begin so.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is random.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Stores in work at a time.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table there too.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(kills: int, cold: int, only: str, seed: int, jobs: int, markdown: Path | None, json_file: Path | None) -> None:
    """Kill tokenizing processes at every step and at random moments; resume; look for what is lost or doubled."""
    # Killed processes leave semaphores behind, of which Python's own keeper would tell at the end.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
    folder, started = Path(tempfile.mkdtemp(prefix="vqtok-chaos-")), time.monotonic()
    setting = matrix.make_setting(folder)
    runs = Matrix(setting, folder, seed, jobs)
    cases = plan(setting, folder / "clean-up", kills, cold, random.Random(seed))
    runs.run([case for case in cases if case.row.startswith(only)])
    while not (only or runs.interrupted) and runs.kills < kills:  # some came too late
        runs.run([case for _ in range(5) for case in _moments()])
    rows = sorted(runs.rows.values(), key=lambda row: (not row.kind.startswith("at every"), row.kind, row.processes))
    seconds, good = time.monotonic() - started, all(row.good for row in rows) and not runs.interrupted
    text = _report(setting, rows, seed, seconds)
    click.echo(text)
    if markdown:
        markdown.write_text(text + "\n")
    if json_file:
        figures = {"seed": seed, "seconds": round(seconds, 1), "good": good, "rows": [asdict(row) for row in rows]}
        json_file.write_text(json.dumps(figures, indent=1) + "\n")
    if good:
        shutil.rmtree(folder)
    else:
        click.echo(f"stores with problems are in {folder}", err=True)
    sys.exit(0 if good else 1)


def _report(setting: Setting, rows: Sequence[Row], seed: int, seconds: float) -> str:
    steps = [*setting.triggers(), *setting.heartbeat_triggers()]
    missed, verified = sum(row.missed for row in rows), sum(row.verified for row in rows)
    problems = [f"problem: {row.kind}: {' '.join(problem.split())}" for row in rows for problem in row.problems]
    return "\n".join(
        [
            table(rows),
            "",
            f"{len(steps)} steps and phases in an uninterrupted run, {missed} not reached; {verified} stores verified; "
            f"{seconds:,.0f} s; seed {seed}",
            *problems,
        ]
    )


if __name__ == "__main__":
    main()
