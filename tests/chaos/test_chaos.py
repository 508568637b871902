"""An excerpt of the kill matrix; `make chaos` runs the whole of it."""

import json
import random
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_store import all_files
from support import sampled

from chaos import __main__ as tool
from chaos import matrix
from chaos.found import Found, look, read_commits
from chaos.matrix import Setting, Trial
from chaos.steps import BEFORE, SIGNAL, Trigger, kind_of, read_log

pytest_plugins = ["fixtures_store"]

GOOD = matrix.COLLECTION["train-0000.tar"]
CHAIN = 3
"""Kills in one store before it is resumed to the end."""


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A tiny collection, and what an uninterrupted run makes of it."""
    return matrix.make_setting(tmp_path_factory.mktemp("chaos"))


@pytest.fixture
def trial(setting: Setting, tmp_path: Path) -> Trial:
    """A store that nobody has begun."""
    return Trial(setting, tmp_path / "trial")


def first_kinds(setting: Setting) -> list[Trigger]:
    """A kill for every family of steps, in the order in which a run comes to them first."""
    found: dict[str, list[Trigger]] = {}
    for trigger in setting.triggers():
        found.setdefault(matrix.family_of(trigger.step), []).append(matrix.first_time(trigger))
    # Before, after and torn take turns.
    return [triggers[number % len(triggers)] for number, triggers in enumerate(found.values())]


# --- the steps ----------------------------------------------------------------------------------------


def test_every_named_step_is_among_those_that_are_found(setting: Setting) -> None:
    kinds = {trigger.step for trigger in [*setting.triggers(), *setting.heartbeat_triggers()]}
    missing = [
        pattern
        for pattern in [*matrix.NAMED_STEPS, *matrix.OTHER_STEPS, matrix.HEARTBEAT]
        if not any(re.fullmatch(pattern, kind) for kind in kinds)
    ]
    assert missing == []


def test_named_steps_come_in_the_order_of_the_format_for_every_part(setting: Setting) -> None:
    for part in setting.parts:
        kinds = [
            kind_of(step, [part])
            for phase, step in setting.steps
            if phase == BEFORE and not any(other in step for other in setting.parts if other != part)
        ]
        position = 0
        for pattern in matrix.NAMED_STEPS:
            if "rejects" in pattern and "cut" not in setting.expected.keys[part]:
                continue  # no rejects are no file
            places = [number for number, kind in enumerate(kinds) if re.fullmatch(pattern, kind)]
            later = [place for place in places if place >= position]
            assert later, f"{part}: no {pattern} after step {position}"
            position = later[0]


def test_a_kill_happens_at_the_step_and_nothing_after_it(setting: Setting, tmp_path: Path) -> None:
    link = matrix.losing_trigger(setting)
    for phase, committed in (("before", 0), ("after", 1)):
        trial = Trial(setting, tmp_path / phase)
        assert trial.start(Trigger(link.step, phase)).wait().status == -signal.SIGKILL
        assert len(read_commits(trial.job.store)) == committed
        log = read_log(trial.logs[0])
        assert [event for event, _ in log[-2:]] == [phase, SIGNAL]
        assert all(kind_of(step, setting.parts) == link.step for _, step in log[-2:])


def test_a_torn_write_leaves_half_of_the_bytes(setting: Setting, trial: Trial) -> None:
    write = next(t for t in setting.triggers() if t.phase == "torn" and "store.json" in t.step)
    assert trial.start(write).wait().status == -signal.SIGKILL
    whole = (setting.folder / "uninterrupted" / "store" / "store.json").stat().st_size
    assert [len(data) for data in all_files(trial.job.store).values()] == [whole // 2]


# --- the kills ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kill_at_every_kind_of_step_loses_nothing(setting: Setting, tmp_path: Path) -> None:
    kinds = first_kinds(setting)
    assert len(kinds) >= 40
    stores = -(-len(kinds) // CHAIN)

    def kill_and_resume(number: int) -> None:
        trial = Trial(setting, tmp_path / str(number))
        missed = matrix.in_a_row(trial, kinds[number::stores])
        trial.resume()
        assert trial.good, trial.found
        for trigger in missed:  # what an earlier run has done is not done again
            alone = Trial(setting, tmp_path / f"{number}-{kinds.index(trigger)}")
            assert matrix.at_step(alone, trigger), trigger
            alone.resume()
            assert alone.good, alone.found

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(kill_and_resume, range(stores)))


def test_a_kill_in_a_heartbeat_loses_nothing(setting: Setting, trial: Trial) -> None:
    assert matrix.at_step(trial, setting.heartbeat_triggers()[0], impatient=True)
    trial.resume()
    assert trial.good, trial.found


@pytest.mark.parametrize(("processes", "all_of_them"), sampled((3, False), (1, True), (2, False), (2, True), (3, True)))
def test_kills_at_random_moments_lose_nothing(
    setting: Setting, trial: Trial, processes: int, all_of_them: bool
) -> None:
    for seed in range(20):  # until one is in time
        matrix.at_moments(trial, processes, all_of_them, random.Random(seed))
        if trial.kills:
            break
        shutil.rmtree(trial.job.store)
    trial.resume(verify=processes == 3)
    assert trial.kills
    assert trial.good, trial.found


@pytest.mark.parametrize("processes", sampled(2, 3))
def test_processes_that_die_at_different_steps_lose_nothing(setting: Setting, trial: Trial, processes: int) -> None:
    patterns = [matrix.NAMED_STEPS[3], matrix.COMMIT, matrix.NAMED_STEPS[7]]
    triggers = [t for pattern in patterns for t in setting.triggers() if re.fullmatch(pattern, t.step)]
    matrix.at_steps(trial, [matrix.first_time(trigger) for trigger in triggers[::2][:processes]])
    trial.resume()
    assert trial.kills
    assert trial.good, trial.found


@pytest.mark.slow  # tests of the job have one that outlives its claim
@pytest.mark.parametrize("then", ["thaw", "kill", "clean-up"])
def test_a_process_that_comes_too_late_does_no_harm(setting: Setting, trial: Trial, then: str) -> None:
    unlink = Trigger("unlink tokens.zarr/parts/<part>.*/label/zarr.json", "after")
    late = matrix.first_time(matrix.losing_trigger(setting))
    assert matrix.frozen(trial, late, unlink if then == "clean-up" else then)
    assert trial.kills == (then != "thaw")
    trial.resume()
    assert trial.good, trial.found


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "group"), [(1, False), (2, False), (2, True)])
def test_kills_of_cold_processes_lose_nothing(setting: Setting, trial: Trial, processes: int, group: bool) -> None:
    matrix.cold(trial, random.Random(1), processes, group)
    trial.resume(verify=True)
    assert trial.good, trial.found


# --- what the matrix would notice ---------------------------------------------------------------------


@pytest.fixture
def damaged(setting: Setting, tmp_path: Path) -> Path:
    """A finished store to damage."""
    return Path(shutil.copytree(setting.folder / "uninterrupted" / "store", tmp_path / "damaged"))


def ordinary(setting: Setting) -> str:
    """A part of rows and no rejects."""
    return next(part for part in setting.parts if len(setting.expected.keys[part]) == len(GOOD))


def found_in(store: Path, setting: Setting) -> Found:
    return look(store, setting.expected, complete=True)


def test_a_part_without_a_commit_is_lost(setting: Setting, damaged: Path) -> None:
    part = ordinary(setting)
    (damaged / "commits" / f"{part}.json").unlink()
    found = found_in(damaged, setting)
    assert found.lost == len(setting.expected.keys[part])
    assert not found.digests_equal
    assert any("not committed" in problem for problem in found.problems)


def test_a_reject_that_is_missing_is_lost_and_one_too_many_is_doubled(setting: Setting, damaged: Path) -> None:
    path = max((damaged / "rejects").iterdir(), key=lambda path: path.stat().st_size)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    assert (found_in(damaged, setting).lost, found_in(damaged, setting).doubled) == (1, 0)
    path.write_text("".join([*lines, lines[0]]))
    assert (found_in(damaged, setting).lost, found_in(damaged, setting).doubled) == (0, 1)


def test_a_missing_file_and_other_tokens_are_noticed(setting: Setting, damaged: Path) -> None:
    tokens = next((damaged / "tokens.zarr" / "parts").glob(f"{ordinary(setting)}.*/tokens/c/0/0"))
    data = tokens.read_bytes()
    tokens.unlink()  # plain Zarr reads zeros
    assert not found_in(damaged, setting).digests_equal
    assert any("other arrays" in problem for problem in found_in(damaged, setting).problems)
    tokens.write_bytes(data[: len(data) // 2])
    assert not found_in(damaged, setting).digests_equal
    tokens.write_bytes(data)
    assert found_in(damaged, setting) == Found(digests_equal=True)


def test_a_commit_of_nothing_planned_and_a_stale_manifest_are_noticed(setting: Setting, damaged: Path) -> None:
    part = ordinary(setting)
    commit = damaged / "commits" / f"{part}.json"
    shutil.copy(commit, damaged / "commits" / "train-9999-000000000000.json")
    assert any("unknown part" in problem for problem in found_in(damaged, setting).problems)
    (damaged / "commits" / "train-9999-000000000000.json").unlink()
    manifest = json.loads((damaged / "manifest.json").read_text())
    manifest["parts"][0]["attempt"] = "deadbeef"
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    assert any("names an attempt" in problem for problem in found_in(damaged, setting).problems)


def test_exit_statuses_and_tracebacks_are_noticed(trial: Trial) -> None:
    trial.judge(matrix.Done(1, "", "vqtok: no"))
    trial.judge(matrix.Done(0, "", "Traceback (most recent call last)"))
    assert trial.found.problems == ["exit status 1: vqtok: no", "Traceback (most recent call last)"]
    assert not trial.good


# --- the long run -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_long_run_prints_and_writes_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "")
    files = ["--markdown", str(tmp_path / "t.md"), "--json", str(tmp_path / "t.json")]
    done = CliRunner().invoke(tool.main, ["--kills", "2", "--cold", "0", "--only", "resumes", *files])
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "t.json").read_text())
    assert figures["good"]
    assert [row["kind"] for row in figures["rows"]] == ["resumes killed in a row"]
    assert sum(row["kills"] for row in figures["rows"]) >= 2
    assert (tmp_path / "t.md").read_text().startswith("| kind of kill | processes | kills | seconds | lost |")
    assert "| total |" in done.output


@pytest.mark.parametrize(
    "change", [{"lost": 1}, {"doubled": 1}, {"equal": 1}, {"missed": 1}, {"problems": ["exit status 1"]}]
)
def test_a_row_with_anything_wrong_is_not_good(change: dict[str, object]) -> None:
    whole = {"kind": "random moment", "processes": 1, "stores": 2, "kills": 2, "equal": 2}
    assert tool.Row(**whole).good
    assert not tool.Row(**{**whole, **change}).good
