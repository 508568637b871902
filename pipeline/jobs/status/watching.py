"""The state of a job, live."""

import contextlib
import sys
import time
from datetime import datetime

from pipeline.config import Config
from pipeline.errors import VqtokError
from pipeline.jobs.status.job import Observer
from pipeline.jobs.status.table import status_line, status_table
from pipeline.jobs.terminal import InPlace
from pipeline.printing import one_line, say, say_json

# A log file wants a line now and then.
_LINE_SECONDS = 30.0


class Watcher:
    """Looks at a job again and again, and shows it on stdout, or on stderr.

    Raises ConfigError, and OSError at the first look; what goes wrong later may be over at the next one.
    """

    def __init__(self, config: Config, error: bool = False) -> None:
        self._observer, self._error = Observer(config), error
        self._stream = sys.stderr if error else sys.stdout
        self._in_place = InPlace(self._stream)
        self._line_due = self._look_due = 0.0
        self.status = self._observer.look()
        """As of the last look that succeeded."""
        self.trouble = ""
        """Why a later one did not."""

    @property
    def is_complete(self) -> bool:
        return self.status.complete and not self.trouble

    def look(self) -> None:
        """Look once more."""
        try:
            self.status, self.trouble = self._observer.look(), ""
        except (OSError, VqtokError) as error:
            self.trouble = f"as of the last look; this one failed: {one_line(error)}"

    def look_sparingly(self) -> None:
        """The same, unless looking would take more than a tenth of the time."""
        began = time.monotonic()
        if began >= self._look_due:
            self.look()
            self._look_due = began + 10 * (time.monotonic() - began)

    def show(self, note: str = "") -> None:
        """The table, in place on a terminal; elsewhere below the time, which a log is read for."""
        if not self._stream.isatty():
            say(f"\n{datetime.fromisoformat(self.status.time).astimezone():%Y-%m-%d %H:%M:%S %z}", error=self._error)
        self._in_place.show("\n\n".join(filter(None, (status_table(self.status), note, self.trouble))))

    def show_progress(self, note: str) -> None:
        """For a command that has more to say: the table on a terminal, elsewhere a line now and then."""
        if self._stream.isatty():
            self.show(note)
        elif (now := time.monotonic()) >= self._line_due:
            self._line_due = now + _LINE_SECONDS
            say(f"{status_line(self.status)}; {note}", error=self._error)


def watch(config: Config, every_s: float, as_json: bool) -> None:
    """Print the state of a job until it is complete or Ctrl-C: in place on a terminal, as JSON in lines of its own.

    Raises as `Watcher`.
    """
    with contextlib.suppress(KeyboardInterrupt):
        watcher = Watcher(config)
        while True:
            if not as_json:
                watcher.show()
            else:
                say_json(watcher.status.to_json(), indent=None)
                if watcher.trouble:
                    say(watcher.trouble, error=True)
            if watcher.is_complete:
                return
            time.sleep(every_s)
            watcher.look()
