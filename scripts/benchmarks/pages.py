"""What benchmarks print: tables that read well on a terminal and are Markdown, and their sections of a page."""

import os
import platform
import re
import shlex
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from click.core import ParameterSource


def write_section(file: Path, name: str, section: str) -> None:
    """Put `section` between `<!-- name -->` and `<!-- /name -->` in a Markdown file, and leave the rest as it is.

    A file without the marks gets them at its end.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = file.read_text() if file.exists() else "# Benchmarks\n"
    marked = f"{start}\n{section}{end}"
    if start in text and end in text:
        text = re.sub(f"{start}.*{end}", lambda _: marked, text, count=1, flags=re.DOTALL)
    else:
        text = f"{text.rstrip()}\n\n{marked}\n"
    file.write_text(text)


def table(lines: Sequence[Sequence[str]]) -> str:
    """The first line is the heading; all but the first column stand to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    align: list[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(widths) - 1)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [put(cell, width) for put, cell, width in zip(align, line, widths, strict=True)]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def machine(packages: Sequence[str]) -> str:
    """Processor, memory and versions of the packages that are installed."""
    installed = []
    for name in packages:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores ({_processor()}), {memory:.0f} GiB, Python {platform.python_version()}, "
        f"{', '.join(installed)}"
    )


def three_digits(number: float) -> str:
    """1234567.0 as 1,230,000."""
    if number >= 100 or number == 0:
        return f"{float(f'{number:.3g}'):,.0f}"
    return f"{number:#.3g}"


def times(ratio: float) -> str:
    """How many times as much."""
    return f"{three_digits(ratio)}×" if ratio >= 1 else f"{ratio:#.2g}×"


def percent(share: float) -> str:
    """0.1234 as 12.3 %; nearer to 1, as many digits as it takes to tell it from 1."""
    digits = next((digits for digits in range(1, 6) if share >= 1 or 100 * (1 - share) > 10**-digits), 6)
    return f"{100 * share:.{digits}f} %"


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1).strip() if found else platform.machine()


def bench_command(target: str) -> str:
    """The make target and the options that make the figures of the running click command again."""
    context = click.get_current_context()
    given: list[str] = []
    for option in context.command.params:
        value = context.params[str(option.name)]
        if option.name == "markdown" or context.get_parameter_source(str(option.name)) is ParameterSource.DEFAULT:
            continue
        for each in value if isinstance(value, tuple) else [value]:
            if isinstance(each, bool):
                given.append((option.opts if each else option.secondary_opts)[0])
            else:
                given += [option.opts[0], shlex.quote(str(each))]
    return f"""make {target} ARGS="{" ".join(given)}\"""" if given else f"make {target}"
