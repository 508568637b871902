"""The blocks of a page, run from top to bottom in the working folder.

Shell runs in bash, as it stands, with this environment's programs. Where `small`, which is to be quick, a command that
would start a process that imports torch runs in this process instead: `vqtok`, the scripts, and what make, torchrun
and `accelerate launch` would start, of which there is one process then.
"""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs.blocks import Block, blocks_of, read_page
from docs.checking import expanded, started
from docs.commands import Command, commands_of, is_plain, lines_of
from pipeline.cli import main

PROGRAMS = Path(sys.executable).parent


class BlockFailed(Exception):
    """A block did not run to its end."""


def run_page(page: str, small: bool) -> None:
    """Run the blocks of one of PAGES; where `small`, without those that are marked as slow."""
    run_blocks(blocks_of(read_page(page), page), small)


def run_blocks(blocks: list[Block], small: bool) -> None:
    """Run blocks in one namespace. Raises BlockFailed naming the page and the line."""
    os.environ["PATH"] = f"{PROGRAMS}:{os.environ['PATH']}"  # what activating the environment does
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if block.mark == "not run" or (block.mark == "slow" and small):
            continue
        try:
            if block.language == "python":
                # Traceback lines are those of the page.
                exec(compile("\n" * (block.line - 1) + block.code, block.page, "exec"), names)
            elif block.language == "sh" and not small:
                _bash(block.code)
            elif block.language == "sh":
                for line in lines_of(block.code):
                    _run_line(line)
        except Exception as error:
            raise BlockFailed(f"{block.place}: {type(error).__name__}: {error}") from error


def _run_line(line: str) -> None:
    if not is_plain(line):
        _bash(line)
        return
    (command,) = commands_of(line)
    _run(command, line)


def _run(command: Command, line: str) -> None:
    if command.name == "make":
        for made in expanded(command, Path.cwd()):
            _run_line(made)
    elif command.is_launch:
        _run(started(command), line)
    elif command.name == "vqtok":
        _in_process(command, lambda: main(prog_name="vqtok"), _one_process(command.words))
    elif command.name == "python" and command.words[1].endswith(".py"):
        script = command.words[1]
        sys.path.insert(0, str(Path(script).parent))
        _in_process(command, lambda: runpy.run_path(script, run_name="__main__"), command.words[1:])
    elif command.words[:1] == ("export",):
        os.environ.update(word.split("=", 1) for word in command.words[1:])
    else:
        _bash(line)


def _one_process(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without `--processes N`."""
    if "--processes" not in words:
        return words
    place = words.index("--processes")
    return words[:place] + words[place + 2 :]


def _in_process(command: Command, function: Callable[[], object], arguments: tuple[str, ...]) -> None:
    """Call the main function of a program with arguments. Raises BlockFailed unless it ends with status 0."""
    os.environ.update(command.variables)
    sys.argv = list(arguments)
    try:
        function()
    except SystemExit as end:
        if end.code:
            raise BlockFailed(f"{' '.join(command.words)}: exit status {end.code}") from None


def _bash(code: str) -> None:
    done = subprocess.run(["bash", "-e", "-c", code])
    if done.returncode:
        raise BlockFailed(f"{code.strip()}: exit status {done.returncode}")
