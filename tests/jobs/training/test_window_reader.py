"""Reading the samples of windows, of files and of the output of commands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_stream import Images, configuration, counted, drawn, write_images

from pipeline.errors import SourceError
from pipeline.jobs.training import window_reader as reading
from pipeline.jobs.training.window_reader import WindowReader

pytest_plugins = ["fixtures_stream"]


@pytest.mark.parametrize("later", ["fails", "prints-less", "prints-more"])
def test_a_command_that_fails_or_prints_something_else_is_an_error(tmp_path: Path, later: str) -> None:
    for name, count in (("first", 12), ("fails", 12), ("prints-less", 11), ("prints-more", 13)):
        write_images(tmp_path / f"{name}.tar", range(count))
    (tmp_path / "name").write_text("first")
    config = configuration([f"pipe:cd {tmp_path}; cat $(cat name).tar; ! grep -q fails name"])
    collection = counted(config)
    (tmp_path / "name").write_text(later)
    with pytest.raises(SourceError, match=r"exit status 1|other samples than when it was counted"):
        drawn(config, collection, 10)


def test_a_command_that_begins_while_reading_is_closed_is_never_left_to_itself(
    collections: dict[str, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a thread may, at any time, that had been told to read from it before."""
    config = configuration(collections["pipe"].shards)
    collection = counted(config)
    reader = WindowReader(collection, config.source)
    late: list[Any] = []
    original = reading._ForwardReader.stop

    def stop(stream: Any) -> None:
        late.append(reader._read_on(1, np.arange(3), 2))
        original(stream)

    monkeypatch.setattr(reading._ForwardReader, "stop", stop)
    assert [sample.index for sample in reader._read_on(0, np.arange(2), 1)] == [0, 1]
    reader.close()
    assert late == [[]]
    assert list(reader._streams) == [0]
