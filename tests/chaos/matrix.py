"""Kills at every step and at any moment, a resume after each, and a look at what the store holds then.

A `Setting` is a tiny collection, a tiny tokenizer, and what an uninterrupted run made of them. A `Trial` is one
store: its processes are killed, frozen or let alone, then one process resumes to the end, and every key of the
source must be there once, in arrays with the digests of the uninterrupted run.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fixtures_store import MIXED, Child, Done, Job, good_samples, make_job, save_tiny_tokenizer, vqtok, write_shard

from chaos.found import Expected, Found, look, part_digest, read_commits
from chaos.steps import AFTER, BEFORE, SIGNAL, TORN, Stepping, Trigger, kind_of, read_log, run_command

_MIXED = ("grey", "cut", "no-label", "no-image", "folder/nested", "bad-label")
COLLECTION = {
    "train-0000.tar": good_samples(0, 5),
    "train-0001.tar": [],
    "more/train-0000.tar": [(key, MIXED[key][0]) for key in _MIXED],
}
"""An ordinary source shard, an empty one, and one with rejects that is called like another."""
FOLDER, PARQUET = "pictures", "table.parquet"
IN_FOLDER = [(f"some/{key}", members) for key, members in good_samples(20, 3)] + [("cut", MIXED["cut"][0])]
IN_PARQUET = good_samples(30, 4)

# For frozen processes: claims of killed ones are taken over at once in any case.
_IMPATIENT = ("--set", "tokenize.claim_timeout=0.4")

COMMIT = r"link commits/.* -> commits/<part>\.json"
"""The step that makes a part exist."""

NAMED_STEPS = (
    r"write staging/<part>\.\*/.*\bc/.*",
    r"fsync staging/<part>\.\*/.*\bc/.*",
    r"fsync staging/<part>\.\*",
    r"rename staging/<part>\.\* -> tokens\.zarr/parts/<part>\.\*",
    r"fsync tokens\.zarr/parts",
    r"write rejects/.*<part>\..*",
    r"fsync rejects/.*<part>\..*",
    r"(rename|link) rejects/.* -> rejects/<part>\.\*\.jsonl",
    r"fsync rejects",
    r"write commits/.*<part>.*",
    r"fsync commits/.*<part>.*",
    COMMIT,
    r"fsync commits",
)
"""The order of a commit in docs/store-format.md, as kinds of steps; for each part they are met in this order."""

OTHER_STEPS = (
    r"link .* -> store\.json",
    r"link listings/.* -> listings/.*\.00000\.json",
    r"link listings/.* -> listings/<part>\.json",
    r"rename tokens\.zarr/.* -> tokens\.zarr/zarr\.json",
    r"rename .* -> tokens\.zarr/codebook/.*",
    r"link claims/.* -> claims/<part>\.json",
    r"unlink claims/<part>\.json",
    r"write .*manifest\.json.*",
    r"fsync .*manifest\.json.*",
    r"rename .* -> manifest\.json",
)
"""What else a job must be seen to do."""

HEARTBEAT = r"rename claims/.* -> claims/<part>\.json"
"""The kind of step that only a heartbeat takes."""

_AREAS = (
    (r"-> tokens\.zarr/parts/<part>|fsync tokens\.zarr/parts$", "move into parts"),
    (r"staging", "arrays in staging"),
    (r"rejects", "rejects"),
    (r"commits", "commit record"),
    (r"claims|failures", "claims"),
    (r"manifest", "manifest"),
    (r"listings", "listings of folders"),
    (r"", "store.json and Zarr metadata"),
)


def area_of(kind: str) -> str:
    """What of the job a kind of step belongs to, for tables."""
    return next(area for pattern, area in _AREAS if re.search(pattern, kind))


def family_of(kind: str) -> str:
    """A kind of step without the place inside of a part or of the hierarchy: `write staging`."""
    operation, *paths = kind.replace("-> ", "").split(" ")
    folders = ["/".join(path.split("/")[: 2 if path.startswith("tokens.zarr/") else 1]) for path in paths]
    return " ".join([operation, *(folder.replace(".tmp-", "") for folder in folders)])


@dataclass(frozen=True)
class Setting:
    """What is tokenized over and over, and what an uninterrupted run makes of it."""

    folder: Path
    expected: Expected
    steps: list[tuple[str, str]]
    """Phase and step, in the order of the uninterrupted run."""
    heartbeats: list[tuple[str, str]]
    """The same of a run with so many heartbeats that all their steps are met."""
    seconds: float
    """From the fork to the end of the uninterrupted run."""

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.expected.keys)

    def triggers(self) -> list[Trigger]:
        """A kill at every kind of step in each of its phases, at the last time that the uninterrupted run is there.

        But for heartbeats, which only a slow run has.
        """
        return [t for t in self.triggers_of(self.steps) if not re.fullmatch(HEARTBEAT, t.step)]

    def heartbeat_triggers(self) -> list[Trigger]:
        """A kill before and after the step that only heartbeats take, at its first time."""
        return [first_time(t) for t in self.triggers_of(self.heartbeats) if re.fullmatch(HEARTBEAT, t.step)]

    def triggers_of(self, steps: Sequence[tuple[str, str]]) -> list[Trigger]:
        """Kills at every kind of step of a run, at the last time."""
        found = Counter((kind_of(step, self.parts), phase) for phase, step in steps if phase in (BEFORE, AFTER))
        torn = {(k, TORN): n for (k, phase), n in found.items() if k.startswith("write ") and phase == BEFORE}
        return [Trigger(kind, phase, count) for (kind, phase), count in (found + Counter(torn)).items()]

    def job(self, folder: Path) -> Job:
        source = self.folder / "source"
        names = ("train-*.tar", "more/train-*.tar", FOLDER, PARQUET)
        changes = {"source.shards": [f"{source}/{name}" for name in names], "source.base": str(source)}
        return make_job(folder, source, self.folder / "tokenizer", changes)


def first_time(trigger: Trigger) -> Trigger:
    """The same step at its first occurrence."""
    return replace(trigger, count=1)


def make_setting(folder: Path) -> Setting:
    """Write the collection and the tokenizer, and tokenize once without interruption."""
    _write_collection(folder / "source")
    save_tiny_tokenizer(folder / "tokenizer")
    setting = Setting(folder, Expected(_keys_by_part(folder), {}, ""), [], [], 0)
    beating = Trial(setting, folder / "beating")
    assert beating.start(impatient=True).wait().status == 0
    trial = Trial(setting, folder / "uninterrupted")
    started = time.monotonic()
    done = trial.start().wait()
    seconds = time.monotonic() - started
    assert done.status == 0, done.err
    store = trial.job.store
    digests = {part: part_digest(store, commit) for part, commit in read_commits(store).items()}
    expected = replace(setting.expected, digests=digests, content_digest=trial.job.digest)
    assert look(store, expected, complete=True) == Found(digests_equal=True), "the uninterrupted run"
    return Setting(folder, expected, read_log(trial.logs[0]), read_log(beating.logs[0]), seconds)


def _write_collection(source: Path) -> None:
    for path, samples in COLLECTION.items():
        write_shard(source / path, samples)
    for key, members in IN_FOLDER:
        for name, data in members.items():
            file = source / FOLDER / f"{key}.{name}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    images = [{"bytes": members["jpg"], "path": f"{key}.jpg"} for key, members in IN_PARQUET]
    labels = [int(members["cls"]) for _, members in IN_PARQUET]
    texts = pa.array([members.get("txt", b"").decode() for _, members in IN_PARQUET])
    pq.write_table(pa.table({"image": images, "label": labels, "txt": texts}), source / PARQUET, row_group_size=2)


def _keys_by_part(folder: Path) -> dict[str, list[str]]:
    """Which part a folder becomes, a first run tells."""
    job = Setting(folder, Expected({}, {}, ""), [], [], 0).job(folder / "first")
    assert job.run().complete
    samples = {**COLLECTION, PARQUET: IN_PARQUET, FOLDER: IN_FOLDER}
    paths = {part: commit["sources"][0]["path"] for part, commit in read_commits(job.store).items()}
    keys = {part: [key for key, _ in samples[path.partition("/#")[0]]] for part, path in paths.items()}
    assert len(keys) == len(samples)
    return keys


# --- one store and its processes --------------------------------------------------------------------------


class Trial:
    """One store: its processes, how many were killed, and what went wrong."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting = setting
        self.job = setting.job(folder)
        self.kills = 0
        self.found = Found()
        self.logs: list[Path] = []
        self.verified = False

    def start(self, *triggers: Trigger, rank: int = 0, world: int = 1, impatient: bool = False) -> Child:
        """`vqtok tokenize` in a forked process, with signals at its steps.

        Args:
            impatient: give up claims that stand still, soon; and so beat often.
        """
        self.logs.append(self.job.file.parent / f"steps-{len(self.logs)}")
        stepping = Stepping(str(self.job.store), self.setting.parts, str(self.logs[-1]), triggers)
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        return Child(
            run_command,
            stepping,
            ["tokenize", "--no-progress", "--config", str(self.job.file), *(_IMPATIENT if impatient else ())],
            folder=self.job.output,
            environment={name: str(value) for name, value in ranks.items()},
        )

    def end(self, child: Child, told_to_stop: bool = False) -> bool:
        """Wait for a process; returns whether it was killed.

        Any other end than that, success, and what SIGTERM leads to where it was sent, is a problem.
        """
        try:
            done = child.wait(60)
        except AssertionError as error:
            self.found.problems.append(f"hangs: {error}")
            return False
        return self.judge(done, (0, 128 + signal.SIGTERM, -signal.SIGTERM) if told_to_stop else (0,))

    def judge(self, done: Done, allowed: Sequence[int] = (0,)) -> bool:
        killed = done.status == -signal.SIGKILL
        self.kills += killed
        if not killed and done.status not in allowed:
            self.found.problems.append(f"exit status {done.status}: {done.err[-1000:]}")
        elif "Traceback" in done.err:
            self.found.problems.append(done.err[-2000:])
        return killed

    def look(self, complete: bool = False) -> None:
        """Add what a look at the store tells."""
        found = look(self.job.store, self.setting.expected, complete)
        self.found.lost += found.lost
        self.found.doubled += found.doubled
        self.found.problems += found.problems
        self.found.digests_equal = found.digests_equal

    def resume(self, verify: bool = False) -> None:
        """One process to the end; then all must be there. `verify`: `vqtok verify` must say so too."""
        self.end(self.start())
        self.look(complete=True)
        if verify:
            done = vqtok("verify", "--config", self.job.file, folder=self.job.output).wait()
            self.verified = True
            if done.status:
                self.found.problems.append(f"vqtok verify: {done.out}{done.err}")

    @property
    def good(self) -> bool:
        found = self.found
        return found.digests_equal and not (found.lost or found.doubled or found.problems)


def at_steps(trial: Trial, triggers: Sequence[Trigger]) -> None:
    """As many processes side by side as there are triggers; each dies at its own, if it comes that far."""
    world = len(triggers)
    children = [trial.start(trigger, rank=rank, world=world) for rank, trigger in enumerate(triggers)]
    for child in children:
        trial.end(child)
    trial.look()


def in_a_row(trial: Trial, triggers: Sequence[Trigger], impatient: bool = False) -> list[Trigger]:
    """A process that dies at a step, the next one that dies at another, and so on. Returns triggers not reached."""
    missed = []
    for trigger in triggers:
        if not trial.end(trial.start(trigger, impatient=impatient)):
            missed.append(trigger)
        trial.look()
    return missed


def at_step(trial: Trial, trigger: Trigger, impatient: bool = False) -> bool:
    """One process that dies at a step, for certain: where threads took another turn, a new store is begun.

    Returns whether it came to the step.
    """
    for attempt in (trigger, first_time(trigger), first_time(trigger)):
        if not in_a_row(trial, [attempt], impatient):
            return True
        shutil.rmtree(trial.job.store)
    return False


def at_moments(trial: Trial, processes: int, all_of_them: bool, draw: random.Random, terminate: bool = False) -> None:
    """Processes side by side; one or all are killed at a random moment, under the eyes of a reader.

    The moment is a number of steps that they have taken together, for how long a step takes changes with the load.

    Args:
        terminate: SIGTERM first, SIGKILL on the way out.
    """
    children = [trial.start(rank=rank, world=processes) for rank in range(processes)]
    logs = trial.logs[-processes:]
    moment = draw.uniform(0, len(trial.setting.steps))
    while sum(len(read_log(log)) for log in logs) < moment and any(child.running for child in children):
        trial.look()
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.02))
    victims = children if all_of_them else [draw.choice(children)]
    if terminate:
        _signal(victims, signal.SIGTERM)
        time.sleep(draw.uniform(0, 0.1))
    _signal(victims, signal.SIGKILL)
    for child in children:
        trial.end(child, told_to_stop=terminate and child in victims)
    trial.look()


def _signal(children: Sequence[Child], number: int) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            if child.running:
                child.signal(number)


def frozen(trial: Trial, trigger: Trigger, then: str | Trigger) -> bool:
    """A process stands still at a step while another does everything; then it goes on, or is killed.

    Args:
        then: `thaw`, `kill`, or where it is killed after it was thawed.

    Returns whether it came to stand still.
    """
    halt = Trigger(trigger.step, trigger.phase, trigger.count, signal.SIGSTOP)
    late = trial.start(halt, *([then] if isinstance(then, Trigger) else []), impatient=True)
    try:
        late.wait_until_stopped()
    except AssertionError:
        trial.end(late)
        return False
    trial.end(trial.start(impatient=True))
    trial.look(complete=True)
    late.signal(signal.SIGKILL if then == "kill" else signal.SIGCONT)
    trial.end(late)
    trial.look(complete=True)
    return True


def losing_trigger(setting: Setting) -> Trigger:
    """Where a process must stand still so that it comes too late with its commit."""
    found = [t for t in setting.triggers() if re.fullmatch(COMMIT, t.step) and t.phase == BEFORE]
    assert found, f"no step {COMMIT}"
    return found[0]


def cleanup_triggers(setting: Setting, folder: Path) -> list[Trigger]:
    """A kill at every kind of step by which a process that lost deletes its attempt, as it is seen to do it."""
    with trial_in(setting, folder) as trial:
        assert frozen(trial, first_time(losing_trigger(setting)), "thaw"), "did not come to its commit"
        assert trial.good, trial.found
        log = read_log(trial.logs[0])
    steps = log[next(number for number, (phase, _) in enumerate(log) if phase == SIGNAL) + 1 :]
    triggers = [first_time(t) for t in setting.triggers_of(steps)]
    return [t for t in triggers if re.match(r"(unlink|rmdir) (tokens\.zarr/parts|staging|rejects|commits)/", t.step)]


def cold(trial: Trial, draw: random.Random, processes: int = 1, group: bool = False) -> None:
    """`python -m pipeline tokenize`, which imports for seconds, killed at a random moment, mostly while it works.

    Args:
        processes: of `--processes`; then it is their parent that is killed.
        group: kill all of them at once.
    """
    command = [sys.executable, "-m", "pipeline", "tokenize", "--no-progress", "--config", str(trial.job.file)]
    errors = trial.job.file.parent / "errors"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--processes", str(processes)],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=stream,
        )
    if draw.random() < 0.2:
        _sleep_until(time.monotonic() + draw.uniform(0, 5), process)
    else:
        while process.poll() is None and not (trial.job.store / "store.json").exists():
            time.sleep(0.01)
        _sleep_until(time.monotonic() + draw.uniform(0, trial.setting.seconds), process)
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    status = process.wait()
    deadline = time.monotonic() + 60
    while _session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)  # children that outlive their parent do the rest
    if _session(process.pid):
        trial.found.problems.append("children outlive their parent by a minute")
        os.killpg(process.pid, signal.SIGKILL)
    trial.judge(Done(status, "", errors.read_text()))
    trial.look()


def _sleep_until(moment: float, process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, moment - time.monotonic()))


def _session(leader: int) -> list[str]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
            if session == str(leader) and state not in "ZX":
                found.append(path.parent.name)
    return found


@contextlib.contextmanager
def trial_in(setting: Setting, folder: Path) -> Iterator[Trial]:
    """A trial whose folder is deleted unless something is wrong with it."""
    trial = Trial(setting, folder)
    yield trial
    if trial.good:
        shutil.rmtree(folder)
