"""Imports point down, and what should answer at once imports neither torch nor Zarr."""

import json
import re
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures_store import Job, cold, cold_python
from support import ROOT, import_path, sampled, vqtok_script

pytest_plugins = ["fixtures_store"]

HEAVY = ("torch", "torchvision", "accelerate", "zarr", "webdataset", "diffusers", "transformers", "ray")

RUN = """
import json, sys
from pipeline.cli import main
answers, heavy = [], json.loads(sys.argv[3])
for words in json.loads(sys.argv[2]):
    status = 0
    try:
        main(words)
    except SystemExit as exit:
        status = exit.code or 0
    answers.append([status, [name for name in heavy if name in sys.modules]])
exec(sys.argv[4])
answers.append([0, [name for name in heavy if name in sys.modules]])
with open(sys.argv[1], "w") as file:
    json.dump(answers, file)
"""


def heavy_imports(folder: Path, commands: Sequence[Sequence[str]], then: str) -> list[list[str]]:
    """Which of HEAVY are there after each of successful commands of one process, and after the code behind them."""
    done = cold_python(RUN, folder / "answers.json", json.dumps(commands), json.dumps(HEAVY), then)
    answers = json.loads((folder / "answers.json").read_text())
    assert [status for status, _ in answers] == [0] * (len(commands) + 1), done.err
    return [names for _, names in answers]


@pytest.fixture(scope="module")
def reported(finished: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The finished job with a report."""
    from pipeline.jobs.reporting import job as report

    report.run(finished.config())
    return finished


LIGHT = {
    "help": ["--help"],
    "help of a command": ["verify", "--help"],
    "kinds of tokenizers": ["import", "--help"],
    "status": ["status", "--config"],
    "status for programs": ["status", "--json", "--config"],
    "quick verification": ["verify", "--quick", "--config"],
    "dry run": ["tokenize", "--dry-run", "--config"],
    "nothing to do": ["tokenize", "--config"],
    "report that is there": ["report", "--config"],
    "all in one with nothing to do": ["run", "--processes", "2", "--config"],
    "a configuration that fits a collection": ["init", str(ROOT / "tests/fixtures/format-1/images/*.tar")],
}


def test_light_commands_import_neither_torch_nor_zarr(reported: Job, tmp_path: Path) -> None:
    """In one process, for none of them leaves any behind. In the end, the proof that it can fail."""
    commands = [[*words, *([str(reported.file)] if words[-1] == "--config" else [])] for words in LIGHT.values()]
    *light, last = heavy_imports(tmp_path, commands, then="import pipeline.store.writing.hierarchy")
    assert dict(zip(LIGHT, light, strict=True)) == {name: [] for name in LIGHT}
    assert last == ["zarr"]


@pytest.mark.parametrize("name", sampled("status", "help", "quick verification"))
def test_light_commands_begin_to_answer_soon(reported: Job, name: str) -> None:
    """They take no more than four times the CPU time of the libraries that they cannot do without, some 3.4 times where
    nothing else runs. Taken in turns, and compared within each: cores change their speed from one turn to the next."""
    words = LIGHT[name]
    command = [vqtok_script(), *words, *([reported.file] if words[-1] == "--config" else [])]
    codebook = ", numcodecs" if "verification" in name else ""
    libraries = [sys.executable, "-c", f"import click, pydantic, yaml{codebook}"]
    assert any(cpu_seconds(*command) / cpu_seconds(*libraries) < 4 for _ in range(3))


def cpu_seconds(*command: str | Path) -> float:
    """What a process that ends well takes of the CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = cold(*command)
    assert done.status == 0, done.err
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


LIGHT_MODULES = (
    "pipeline",
    "pipeline.store",
    "pipeline.models",
    "pipeline.jobs.work.launch",
    "pipeline.jobs.reporting.job",
    "pipeline.jobs.ray.job",  # and with it what Ray's workers import
)


def test_light_modules_import_no_torch_and_what_looks_at_records_alone_no_numpy() -> None:
    code = (
        "import importlib, sys\n"
        "import pipeline.jobs.plan, pipeline.jobs.status.job\n"
        "print('numpy', 'numpy' in sys.modules)\n"
        f"for module in {LIGHT_MODULES}:\n"
        "    importlib.import_module(module)\n"
        f"    print(module, [name for name in {HEAVY} if name in sys.modules])"
    )
    done = cold_python(code)
    assert (done.out.splitlines(), done.err) == (["numpy False", *(f"{module} []" for module in LIGHT_MODULES)], "")


def test_only_the_command_line_knows_click() -> None:
    click = re.compile(r"^\s*(import|from) click\b", re.MULTILINE)
    found = {file.parent for file in (ROOT / "pipeline").rglob("*.py") if click.search(file.read_text())}
    assert found == {ROOT / "pipeline" / "cli"}


def test_only_its_own_room_knows_ray() -> None:
    ray = re.compile(r"^\s*(import|from) ray\b", re.MULTILINE)
    found = {
        file.relative_to(ROOT).as_posix() for file in (ROOT / "pipeline").rglob("*.py") if ray.search(file.read_text())
    }
    assert found == {"pipeline/jobs/ray/cluster.py"}


@pytest.mark.parametrize(
    "code",
    [
        "from pipeline.models import SimpleVQVAE, VectorQuantizer",
        "from pipeline.store import TokenStore",
        "from pipeline.loader import TokenLoader",
    ],
)
def test_the_public_names_are_there(code: str) -> None:
    names: dict[str, object] = {}
    exec(code, names)
    assert all(isinstance(names[name], type) for name in names if name != "__builtins__")


def lint_imports(*arguments: str | Path) -> tuple[int, str]:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = cold(sys.executable, "-c", command, "--no-cache", *arguments)
    return done.status, done.out


@pytest.mark.slow
def test_imports_point_down_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    status, out = lint_imports()  # as `make lint` does
    assert status == 0, out
    assert " kept, 0 broken." in out


def test_an_import_that_points_up_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "pipeline/source/containers/tar/strict.py").open("a") as file:
        file.write("\nfrom pipeline.models.layouts.cuts import CUTS\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", import_path(tmp_path))
    status, out = lint_imports()
    assert status == 1
    assert "pipeline.source.containers.tar.strict -> pipeline.models.layouts.cuts" in out
