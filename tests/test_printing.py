"""What is printed: nothing that a terminal would obey, and no secrets, by one way."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from wicked import WICKED

import pipeline
from pipeline.errors import BadImage, ConfigError, SourceError
from pipeline.printing import one_line, printable, say, say_json, shown

PACKAGE = Path(pipeline.__file__).parent


@pytest.mark.parametrize("text", WICKED.values(), ids=WICKED)
def test_what_a_terminal_would_obey_is_escaped(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    assert shown(f"one {text}").count("\n") == text.count("\n")
    assert one_line(ValueError(text)).isprintable()
    printable(text).encode()  # a surrogate could not be printed


def test_plain_text_is_printed_as_it_is() -> None:
    text = "größer 日本 ─▶ é \\x1b"
    assert printable(text) == text
    assert shown(f"{text}\n\n  {text}") == f"{text}\n\n  {text}"


def test_errors_are_made_without_controls_and_secrets() -> None:
    for kind in (ConfigError, SourceError, BadImage):
        error = kind("a\x1b[31m\nhttps://u:p4ssw0rd@h/x")
        assert str(error) == "a\\x1b[31m\nhttps://…@h/x"
        assert str(kind(*error.args)) == str(error)


def test_texts_and_json_go_to_their_streams(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b b\nhttps://u:p4ssw0rd@h/")
    say("c\x07", error=True, end="")
    say("see https://h/?q=1\x1b", is_data=True)
    say_json({"a": "https://h/?q=1", "b": ["\x1b\u202e"]}, indent=None)
    say_json({"a": "https://h/?q=1"}, is_data=True, indent=None)
    out, err = capsys.readouterr()
    assert err == "c\\x07"
    first, second, third, masked, data = out.splitlines()
    assert (first, second, third) == ("a\\x1b b", "https://…@h/", "see https://h/?q=1\\x1b")
    assert json.loads(masked) == {"a": "https://h/?…", "b": ["\x1b\u202e"]}
    assert json.loads(data) == {"a": "https://h/?q=1"}
    assert masked.isascii()
    assert masked.isprintable()


@pytest.mark.parametrize("where", ["raise_it()", "threading.Thread(target=raise_it).start()"])
def test_tracebacks_are_printed_likewise(where: str) -> None:
    code = f"""
import threading
from pipeline.printing import say_tracebacks
say_tracebacks()
def raise_it():
    raise RuntimeError("a\\x1b[31m https://u:p4" + "ssw0rd@h/x")
{where}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "Traceback" in done.stderr
    assert "RuntimeError: a\\x1b[31m https://…@h/x" in done.stderr
    assert "\x1b" not in done.stderr
    assert "p4ssw0rd" not in done.stderr


_PRINTS = re.compile(r"^\s*(?:print|click\.echo|tqdm\.write|sys\.std(?:out|err)\.write)\(.*", re.MULTILINE)
"""Lines by which text reaches a terminal."""


def test_there_is_one_way_to_the_terminal() -> None:
    """Beside it, tables in place and lines above a progress bar, which are made of the same."""
    own = {"printing.py", "jobs/terminal.py"}
    modules = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in own]
    lines = [line for path in modules for line in _PRINTS.findall(path.read_text(encoding="utf-8"))]
    assert len(modules) > 300
    assert [line for line in lines if "shown(" not in line] == []
    assert len(_PRINTS.findall((PACKAGE / "printing.py").read_text(encoding="utf-8"))) == 2  # the test can fail
