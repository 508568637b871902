"""What is tried, a line each, every one in bounded time."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeVar

from pipeline.errors import VqtokError
from pipeline.records import JSON

T = TypeVar("T")

Status = Literal["ok", "note", "failed"]

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Line:
    """One thing that a job needs, and whether it is there."""

    about: str
    """`store`, `source`, `tokenizer`, `image` or `job`."""
    tried: str
    status: Status
    """`note` is for what is no fault, but worth knowing."""
    said: str
    """What was found; of what failed, why, and the remedy."""

    def __str__(self) -> str:
        status = self.status.upper() if self.status == "failed" else self.status
        return f"{self.about:10} {self.tried:15} {status:7} {self.said}".rstrip()


class NoAnswer(VqtokError):
    """Something has not ended in time."""


@dataclass
class Checks:
    """The lines of a check, in the order in which they were found out."""

    seconds: float
    """How long a line may take."""
    show: Callable[[Line], object] = lambda line: None
    """Called with each line at once."""
    lines: list[Line] = field(default_factory=list)
    is_abandoned: bool = False
    """Whether a thread still waits for an answer that nobody waits for any more."""

    @property
    def failed(self) -> bool:
        """Whether anything is missing."""
        return any(line.status == "failed" for line in self.lines)

    def add(self, about: str, tried: str, status: Status, said: str) -> None:
        """One more line."""
        self.lines.append(Line(about, tried, status, said))
        self.show(self.lines[-1])

    def attempt(
        self,
        about: str,
        tried: str | Sequence[str],
        ask: Callable[[], T],
        say: Callable[[T], str] = lambda found: "",
        *,
        blame: Callable[[Exception], int] = lambda error: -1,
        at_most: float = 1.0,
    ) -> T | None:
        """What `ask` returns; None where it fails, as its line says then. It is not to return None itself.

        Args:
            tried: what is found out by that; of several things, all before the one that fails are there.
            say: what to say of the result.
            blame: which of several things an error is about.
            at_most: times `seconds` that it may take.
        """
        steps = [tried] if isinstance(tried, str) else list(tried)
        try:
            found = self.within(ask, at_most)
        except (VqtokError, OSError, MemoryError) as error:
            at = blame(error) % len(steps)
            for step in steps[:at]:
                self.add(about, step, "ok", "")
            self.add(about, steps[at], "failed", str(error))
            return None
        for step in steps[:-1]:
            self.add(about, step, "ok", "")
        self.add(about, steps[-1], "ok", say(found))
        return found

    def within(self, ask: Callable[[], T], at_most: float = 1.0) -> T:
        """What `ask` returns or raises, in a thread that is left alone when it takes too long.

        Raises NoAnswer then.
        """
        seconds = self.seconds * at_most
        answer: Future[T] = Future()
        threading.Thread(target=_answer, args=(answer, ask), name="check", daemon=True).start()
        deadline = time.monotonic() + seconds
        while True:
            try:
                return answer.result(_POLL_SECONDS)  # a short wait, which signals can end
            except NotYet:
                if answer.done():
                    return answer.result()  # meanwhile, or `ask` itself has raised one of these
                if time.monotonic() > deadline:
                    self.is_abandoned = True
                    raise NoAnswer(
                        f"no answer within {seconds:g} s; see to the server or the disk, or wait longer with --seconds"
                    ) from None

    def to_json(self) -> JSON:
        """For programs."""
        return {"ok": not self.failed, "lines": [asdict(line) for line in self.lines]}


def _answer(answer: "Future[T]", ask: Callable[[], T]) -> None:
    try:
        answer.set_result(ask())
    except BaseException as error:  # handed to who waits, whatever it is
        answer.set_exception(error)
