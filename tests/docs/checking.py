"""What is wrong with a block, or with a command in the text, that can be told without running it.

Shell is parsed by bash, Python compiled. The options of `vqtok` are compared with its click commands, keys with the
configuration's models, make targets with the Makefile, options of launchers and scripts with their own parsers or code.
"""

import ast
import contextlib
import importlib
import io
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click
import yaml
from accelerate.commands.launch import launch_command_parser
from pydantic import BaseModel
from support import ROOT
from torch.distributed.run import get_args_parser

from docs.blocks import Block
from docs.commands import Command, commands_of, lines_of
from pipeline.cli import main
from pipeline.config import Config

# What `make -n` takes for made: the environment, whatever its age.
MADE = ("-o", ".venv/installed")


def problems(block: Block) -> list[str]:
    """One line for each thing that is wrong with a block; `text` and other languages are not looked at."""
    checks: dict[str, Callable[[str], Iterable[str]]] = {"sh": _shell, "python": _python, "yaml": _yaml}
    return list(checks.get(block.language, lambda code: ())(block.code))


def command_problems(text: str) -> list[str]:
    """The same of a command within the text, which may lack required options and have `…` in it."""
    try:
        commands = commands_of(text.replace("…", "").replace("...", ""))
    except ValueError as error:  # of a quotation without an end
        return [f"{text}: {error}"]
    return [problem for command in commands for problem in _command(command, whole=False)]


def key_problems(name: str) -> list[str]:
    """What is wrong with a configuration's `section.key`."""
    return list(_key(name))


def expanded(command: Command, folder: Path = ROOT) -> list[str]:
    """The lines of shell code that a make command would run. Raises ValueError for one that make refuses."""
    words = ["make", "-n", "--no-print-directory", *MADE, *command.words[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return lines_of(done.stdout)


def started(command: Command) -> Command:
    """What torchrun or `accelerate launch` would start. Raises ValueError for options that they do not know."""
    torchrun = command.name == "torchrun"
    parser = get_args_parser() if torchrun else launch_command_parser()
    parser.allow_abbrev = False
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err):
            given = parser.parse_args(command.words[1 if torchrun else 2 :])
    except SystemExit:
        raise ValueError(err.getvalue().strip().splitlines()[-1]) from None
    program = () if given.no_python else ("python",)
    return Command((*program, given.training_script, *given.training_script_args), command.variables)


# --- languages --------------------------------------------------------------------------------------------


def _shell(code: str) -> Iterator[str]:
    parsed = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
    if parsed.returncode:
        yield parsed.stderr.strip()
        return
    for line in lines_of(code):
        for command in commands_of(line):
            yield from _command(command)


def _python(code: str) -> Iterator[str]:
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        yield str(error)
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline"):
            module = importlib.import_module(node.module or "")
            yield from (f"{node.module} has no {a.name}" for a in node.names if not hasattr(module, a.name))


def _yaml(code: str) -> Iterator[str]:
    for section, keys in (yaml.safe_load(code) or {}).items():
        for name in [f"{section}.{key}" for key in keys or ()] or [section]:
            yield from _key(name)


# --- commands ---------------------------------------------------------------------------------------------


def _command(command: Command, whole: bool = True) -> Iterator[str]:
    yield from _files(command)
    if command.name == "vqtok":
        yield from _vqtok(command.words[1:], whole)
    elif command.name == "make":
        yield from _make(command, whole)
    elif command.is_launch:
        try:
            # In the text a launcher may stand alone.
            yield from _command(started(command if whole else replace(command, words=(*command.words, "x"))), whole)
        except ValueError as error:
            yield str(error)
    elif command.name == "python":
        yield from _script(command.words[1:])
    elif command.name == "pytest":
        yield from _pytest(command.words[1:])
    elif command.name == "pip":
        yield from _extras(command.words[1:])


def _vqtok(arguments: tuple[str, ...], whole: bool) -> Iterator[str]:
    name, *rest = arguments or ("--help",)
    if name in ("--help", "-h", "--version"):
        return
    if name not in main.commands:
        yield f"vqtok has no command {name}"
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            group = click.Context(main, info_name="vqtok", **main.context_settings)
            context = main.commands[name].make_context(name, list(rest), parent=group)
    except click.exceptions.Exit:  # after --help
        return
    except click.UsageError as error:
        if whole or isinstance(error, click.NoSuchOption | click.BadOptionUsage):
            yield f"vqtok {name}: {error.format_message()}"
        return
    for override in context.params.get("overrides", ()):
        yield from _key(override.partition("=")[0])


def _key(name: str) -> Iterator[str]:
    """A configuration's `section.key`, or a section alone."""
    model: type[BaseModel] | None = Config
    for step in name.strip().split("."):
        if model is None or step not in model.model_fields:
            yield f"the configuration has no {name}"
            return
        kind = model.model_fields[step].annotation
        candidates = (kind, *get_args(kind))
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _make(command: Command, whole: bool) -> Iterator[str]:
    known = re.findall(r"^(\w+) *\?=", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in command.words[1:]:
        name, equals, _ = word.partition("=")
        if equals and name not in known:
            yield f"the Makefile has no {name}"
    try:
        lines = expanded(command)
    except ValueError as error:
        yield str(error)
        return
    for line in lines:
        for made in commands_of(line):
            if made.name != "make":
                yield from _command(made, whole)


def _files(command: Command) -> Iterator[str]:
    """Files of the repository, and the variables that its shell scripts are given."""
    for word in command.words:
        if re.match(r"(scripts|configs|tests)/", word) and not (ROOT / word.partition("::")[0]).exists():
            yield f"there is no {word}"
        elif re.match(r"scripts/.*\.(sh|sbatch)$", word):
            text = (ROOT / word).read_text()
            yield from (f"{word} reads no {name}" for name in command.variables if f"{name}" not in text)


def _script(arguments: tuple[str, ...]) -> Iterator[str]:
    if arguments and arguments[0].startswith("scripts/"):
        code = "".join(path.read_text() for path in (ROOT / "scripts").rglob("*.py"))
        options = [word.partition("=")[0] for word in arguments if word.startswith("--") and word != "--help"]
        yield from (f"{arguments[0]} has no {option}" for option in options if f'"{option}' not in code)


def _pytest(arguments: tuple[str, ...]) -> Iterator[str]:
    """Names after -k that no test in the files has."""
    if "-k" not in arguments:
        return
    places = [ROOT / word for word in arguments if word.startswith("tests")] or [ROOT / "tests"]
    files = [path for place in places for path in (place.rglob("test_*.py") if place.is_dir() else [place])]
    code = "".join(path.read_text() for path in files if path.exists()).lower()
    for name in re.findall(r"\w+", arguments[arguments.index("-k") + 1]):
        if name not in ("and", "or", "not") and name.lower() not in code:
            yield f"no test is selected by -k {name}"


def _extras(arguments: tuple[str, ...]) -> Iterator[str]:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"^(?:\.|vqtok)\[([\w,]+)\]$", "\n".join(arguments), re.MULTILINE):
        yield from (f"there is no extra {name}" for name in named.split(",") if name not in known)
