"""The command line: every command is documented, every mistake ends in one message and the right exit status."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from fixtures_store import (
    COLLECTION,
    Done,
    Job,
    cold,
    cold_python,
    good_samples,
    save_tiny_tokenizer,
    vqtok,
    write_shard,
)
from support import ROOT, sampled, vqtok_script

import pipeline
from pipeline import __version__
from pipeline.cli import main

pytest_plugins = ["fixtures_store"]

README = (ROOT / "README.md").read_text()
CONFIGURED = [name for name, command in main.commands.items() if any(p.name == "path" for p in command.params)]
"""Commands with --config."""


def answer(*arguments: str | Path) -> Done:
    """The command in this process, to its end."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="vqtok")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def refused(done: Done, status: int) -> str:
    """The message of a command that has failed as it should."""
    assert (done.status, done.out) == (status, "")
    assert "Traceback" not in done.err
    return done.err


# --- documentation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", main.commands)
def test_every_command_has_help_and_is_in_the_readme(name: str) -> None:
    command = main.commands[name]
    assert (command.help or "").strip().endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "").endswith("."), parameter.name
    assert re.search(rf"^\| `vqtok {name} ", README, re.MULTILINE)


@pytest.mark.parametrize("options", [["--help"], ["-h"], ["tokenize", "--help"], ["verify", "-h"], ["--version"]])
def test_help_is_printed(options: list[str]) -> None:
    done = answer(*options)
    assert (done.status, done.err) == (0, "")
    assert __version__ in done.out if options == ["--version"] else done.out.startswith("Usage: ")


def test_help_is_printed_where_the_working_folder_is_gone(tmp_path: Path) -> None:
    code = "import os, runpy, sys; os.rmdir(os.getcwd()); runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    (tmp_path / "gone").mkdir()
    main_file = Path(pipeline.__file__).with_name("__main__.py")
    done = cold(sys.executable, "-P", "-c", code, main_file, "tokenize", "--help", folder=tmp_path / "gone")
    assert (done.status, done.err) == (0, "")
    assert "configs" in done.out


def test_commands_are_listed_in_the_order_of_use(tmp_path: Path) -> None:
    help_page = vqtok("-h", folder=tmp_path, environment={"COLUMNS": "80"}).wait().out
    assert not re.search(r"^  .*\.\.\.$", help_page, re.MULTILINE)  # none is cut off
    listed = re.findall(r"^  (\w+)  ", help_page, re.MULTILINE)
    order = "sample inspect init import check train estimate tokenize run ray status verify show clean report export"
    assert " ".join(listed) == order


@pytest.mark.parametrize("module", sampled("pipeline", "pipeline.cli"))
def test_python_m_is_the_same_command(module: str) -> None:
    assert cold(vqtok_script(), "--version") == cold(sys.executable, "-m", module, "--version")


# --- bad configurations -----------------------------------------------------------------------------------


BAD_TREES: dict[str, tuple[Callable[[dict[str, dict[str, object]]], object], str]] = {
    "unknown key": (
        lambda tree: tree["tokenize"].update(batchsize=3),
        r"tokenize\.batchsize: unknown key; did you mean batch_size\?",
    ),
    "unknown section": (lambda tree: tree.update(tokenise={}), r"tokenise: unknown key; did you mean tokenize\?"),
    "missing key": (lambda tree: tree["source"].pop("shards"), r"source\.shards: missing"),
    "missing section": (lambda tree: tree.pop("image"), r"image: missing"),
    "empty place": (lambda tree: tree["tokenize"].update(store=""), r"tokenize\.store: .*got ''"),
    "wrong type": (lambda tree: tree["image"].update(size="large"), r"image\.size.*'large'"),
    "out of range": (lambda tree: tree["tokenize"].update(batch_size=0), r"tokenize\.batch_size: .* \(got 0\)"),
    "unknown choice": (lambda tree: tree["tokenize"].update(precision="fp8"), r"tokenize\.precision: .*'fp8'"),
    "unknown layout": (
        lambda tree: tree["tokenize"].update(layout="spiral"),
        r"no block layout 'spiral'; known: raster",
    ),
    "unset variable": (
        lambda tree: tree["tokenize"].update(store="${VQTOK_UNSET}/store"),
        r"the environment variable VQTOK_UNSET is not set",
    ),
    "missing source shard": (
        lambda tree: tree["source"].update(shards="nowhere/a-{0..3}.tar", base=None),
        r"4 of 4 source shards are missing, first nowhere/a-0\.tar",
    ),
    "empty pattern": (
        lambda tree: tree["source"].update(shards="nowhere/*.tar", base=None),
        r"'nowhere/\*\.tar' matches no file",
    ),
    "no patterns": (lambda tree: tree["source"].update(shards=[]), r"source\.shards"),
    "everything excluded": (lambda tree: tree["source"].update(exclude="*"), r"no source shards left"),
    "outside the base": (lambda tree: tree["source"].update(base="/nowhere"), r"source\.base: .*does not lie in"),
    "object store": (
        lambda tree: tree["tokenize"].update(store="s3://bucket/store?secret=1"),
        r"s3://bucket/store\?…: a URL here has no user, query or fragment",
    ),
    "pipe": (
        lambda tree: tree["source"].update(shards="pipe:cat x.tar", base=None),
        r"source.shards: the command of a pipe: source runs only with source.allow_pipe=true",
    ),
}


@pytest.mark.parametrize("mistake", BAD_TREES)
def test_a_bad_configuration_is_status_2_and_names_the_field(job: Job, mistake: str) -> None:
    change, message = BAD_TREES[mistake]
    tree = yaml.safe_load(job.file.read_text())
    change(tree)
    job.file.write_text(yaml.safe_dump(tree))
    err = refused(answer("tokenize", "--config", job.file), 2)
    assert re.search(message, err), err
    assert err.startswith("vqtok: ")
    assert "secret" not in err
    assert not job.store.exists()


@pytest.mark.parametrize("command", ["train", "tokenize", "run"])
def test_a_rank_that_is_no_number_is_status_2(job: Job, command: str) -> None:
    done = vqtok(command, "--config", job.file, folder=job.output, environment={"RANK": "one"}).wait()
    assert done.status == 2
    assert done.err.startswith("vqtok: RANK: 'one' in the environment is not a whole number of at least 0; ")
    assert "Traceback" not in done.err
    assert not job.store.exists()


BAD_FILES = {
    "missing": (None, r"no such configuration file; there are some to copy in configs"),
    "empty": ("", "holds no sections"),
    "no YAML": ("a: [", "not valid YAML"),
    "a list": ("- a", "holds no sections"),
    "no text": (b"\xff\xfe\x00", "cannot be read as a configuration file"),
}


@pytest.mark.parametrize("command", CONFIGURED)
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_status_2_for_every_command(tmp_path: Path, kind: str, command: str) -> None:
    contents, message = BAD_FILES[kind]
    file = tmp_path / "job.yaml"
    if contents is not None:
        file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    err = refused(answer(command, "--config", file), 2)
    assert err.startswith(f"vqtok: {file}: ")
    assert message in err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokenize.batchsize=3", "tokenize.batchsize: unknown key; did you mean batch_size?"),
        ("tokenise.batch_size=3", "tokenise: unknown key; did you mean tokenize?"),
        ("batch_size=3", "write it as section.key=value"),
        ("tokenize.batch_size", "write it as section.key=value"),
        ("tokenize..x=1", "write it as section.key=value"),
        ("tokenize.store.path=1", "store is not a section"),
        ("tokenize.batch_size=many", "tokenize.batch_size"),
    ],
)
def test_a_bad_override_is_status_2(job: Job, override: str, message: str) -> None:
    assert message in refused(answer("tokenize", "--config", job.file, "--set", override), 2)


def test_overrides_win_in_their_order(job: Job) -> None:
    stores = [word for place in ("elsewhere", "'the last'") for word in ("--set", f"tokenize.store={place}")]
    done = answer("tokenize", "--dry-run", "--config", job.file, *stores)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("the last: 6 of 6 source shards are pending, ")


@pytest.mark.parametrize(
    "arguments",
    [
        "tokenise",
        "tokenize",
        "tokenize --confg x",
        "tokenize --processes 0 --config x",
        "sample",
        "status x",
        "show x",
        "show x -y",
    ],
)
def test_a_wrong_command_line_is_status_2(arguments: str) -> None:
    err = refused(answer(*arguments.split()), 2)
    assert "Usage: " in err
    assert "Error: " in err


# --- bad folders ------------------------------------------------------------------------------------------


def damage_tokenizer(folder: Path, kind: str) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    save_tiny_tokenizer(folder)
    if kind == "missing":
        shutil.rmtree(folder)
    elif kind == "a file":
        shutil.rmtree(folder)
        folder.write_text("no folder")
    elif kind == "without weights":
        weights.unlink()
    elif kind == "without config":
        config.unlink()
    elif kind == "unreadable":
        config.unlink()
        config.mkdir()
    elif kind == "no JSON":
        config.write_text("{")
    elif kind == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-5])
    elif kind == "weights of another":
        save_tiny_tokenizer(folder / "other", seed=1)
        (folder / "other/model.safetensors").replace(weights)
    elif kind == "pickle":
        config.unlink()
        weights.replace(folder / "model.pt")


BAD_TOKENIZERS = {
    "missing": "no such tokenizer folder",
    "a file": "no such tokenizer folder",
    "without weights": "model.safetensors: missing",
    "without config": "config.json: missing",
    "unreadable": "config.json: cannot be read",
    "no JSON": "not valid JSON",
    "cut weights": "copy the folder again or train again",
    "weights of another": "not the weights that config.json was written for",
    "pickle": "a pickle can run code when it is opened",
}


@pytest.mark.parametrize("kind", BAD_TOKENIZERS)
def test_a_tokenizer_folder_that_cannot_be_used_is_named(job: Job, tmp_path: Path, kind: str) -> None:
    damage_tokenizer(tmp_path / "bad", kind)
    err = refused(answer("tokenize", "--config", job.file, "--set", f"tokenizer.path={tmp_path / 'bad'}"), 1)
    assert err.startswith(f"vqtok: {tmp_path / 'bad'}")
    assert BAD_TOKENIZERS[kind] in err
    assert not job.store.exists()


@pytest.mark.parametrize("command", ["verify", "report"])
def test_what_needs_a_store_says_where_there_is_none(job: Job, command: str) -> None:
    err = refused(answer(command, "--config", job.file), 1)
    assert str(job.store) in err
    assert "run vqtok tokenize first" in err


@pytest.mark.parametrize("command", ["tokenize", "status", "verify", "report"])
def test_a_store_below_a_file_is_refused_without_a_traceback(job: Job, command: str) -> None:
    job.store.write_text("a file")
    override = f"tokenize.store={job.store}/below"
    done = answer(command, "--config", job.file, "--set", override)
    assert refused(done, 2) == f"vqtok: tokenize.store: {job.store}/below cannot be a store: {job.store} is a file\n"


NO_ROOM_FOR_TORCH = """
import sys
from pipeline.cli import main
class Loader:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise ImportError("libtorch_cpu.so: " + reason)
reason = sys.argv[1]
sys.meta_path.insert(0, Loader())
main(sys.argv[2:])
"""


def test_a_library_for_which_memory_is_short_is_one_message(job: Job) -> None:
    """As the loader says it below a `ulimit -v`; another reason is a fault of the installation, with its traceback."""
    command = ("tokenize", "--no-progress", "--config", job.file)
    done = cold_python(NO_ROOM_FOR_TORCH, "failed to map segment from shared object", *command)
    said = (
        "vqtok: libtorch_cpu.so: failed to map segment from shared object: give the process more memory (ulimit -v)\n"
    )
    assert refused(done, 1) == said
    assert "Traceback" in cold_python(NO_ROOM_FOR_TORCH, "undefined symbol", *command).err


def test_a_reader_that_leaves_is_no_error(finished: Job) -> None:
    command = [sys.executable, "-m", "pipeline", "status", "--config", str(finished.file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read().decode()
    assert "Traceback" not in err


# --- the whole way ----------------------------------------------------------------------------------------


def test_run_tokenizes_with_the_tokenizer_there_is_and_reports(job: Job, finished: Job) -> None:
    done = vqtok("run", "--config", job.file, folder=job.output).wait()
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == f"{job.tokenizer}: a tokenizer is there"
    assert f"{job.store}: {len(COLLECTION)} of {len(COLLECTION)} source shards are committed" in lines
    assert any(line.startswith("reconstruction PSNR ") for line in lines)
    assert f'    store = TokenStore("{job.store}")' in lines
    assert job.digest == finished.digest
    again = vqtok("run", "--config", job.file, folder=job.output).wait()
    assert (again.status, again.err) == (0, "")
    assert "all 6 source shards are committed; nothing to do" in again.out
    assert again.out.endswith(done.out[done.out.index("rows  ") :])


def test_run_refuses_before_it_trains(damageable: Job, tmp_path: Path) -> None:
    write_shard(tmp_path / "mine/mine-0000.tar", good_samples(500, 3))
    options = {"source.shards": f"{tmp_path}/mine/*.tar", "source.base": "null", "tokenizer.path": f"{tmp_path}/new"}
    settings = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    done = vqtok("run", "--config", damageable.file, *settings, "--set", "train.steps=1", folder=damageable.output)
    assert "none of them of the source shards of this configuration" in refused(done.wait(), 1)
    assert not (tmp_path / "new").exists()


def test_run_ends_with_the_status_of_what_failed(copied: Path, job: Job) -> None:
    (copied / "train-0001.tar").write_bytes(b"")
    options = ["--config", job.file, "--set", f"source.shards={copied}/train-000[01].tar", "--set", "source.base=null"]
    done = vqtok("run", *options, folder=job.output).wait()
    assert done.status == 1
    assert "train-0001.tar stays pending: " in done.err
    assert "Traceback" not in done.err
    assert "PSNR" not in done.out
    answer = vqtok("status", "--json", *options, folder=job.output).wait()
    assert json.loads(answer.out)["pending"] == 1


def test_run_does_not_train_for_a_store_whose_tokenizer_is_gone(damageable: Job, tmp_path: Path) -> None:
    """Hours later it would be refused, for it makes other tokens."""
    gone = tmp_path / "gone"
    options = ("--config", damageable.file, "--set", f"tokenizer.path={gone}", "--set", "train.steps=1")
    done = vqtok("run", *options, folder=damageable.output).wait()
    assert (done.status, done.out) == (1, "")
    assert "holds tokens of a tokenizer that is not in" in done.err and "restore the tokenizer" in done.err
    assert not gone.exists()
