"""Data sets of the Hugging Face hub, seen through the file system that its library gives."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import ConfigError
from pipeline.files import files_at
from pipeline.files.hub import HubFiles

ROOT = "hf://datasets"


class Hub(DirFileSystem):  # type: ignore[misc]
    """A folder in place of the hub: the library's interface is fsspec's."""

    def find(self, path: str, **options: Any) -> Any:
        found = super().find(path, **options)
        if not found:
            raise FileNotFoundError(path)
        return found


@pytest.fixture
def files(tmp_path: Path) -> HubFiles:
    (tmp_path / "datasets/me/set/data").mkdir(parents=True)
    (tmp_path / "datasets/me/set/README.md").write_bytes(b"# Set")
    (tmp_path / "datasets/me/set/data/x.parquet").write_bytes(bytes(range(256)) * 8)
    files = HubFiles(ROOT)
    files.client = Hub(str(tmp_path), LocalFileSystem())
    return files


def test_files_are_listed_and_read(files: HubFiles) -> None:
    assert files.list("me/set") == ["README.md"]
    assert files.folders("me/set") == ["data"]
    assert files.names("me/set") == ["README.md", "data"]
    assert (files.list("me/other"), files.folders("me/other")) == ([], [])
    assert {path: stat.bytes for path, stat in files.stats("me/set").items()} == {
        "README.md": 5,
        "data/x.parquet": 2048,
    }
    assert files.read("me/set/data/x.parquet", 250, 10) == bytes([*range(250, 256), *range(4)])
    assert files.read("me/set/README.md") == files.fetch("me/set/README.md")[0] == b"# Set"
    with files.open("me/set/data/x.parquet") as stream:
        assert stream.read() == bytes(range(256)) * 8
    with files.open("me/set/data/x.parquet", 255, 3) as stream:
        assert stream.read() == b"\xff\0\1"
    with pytest.raises(FileNotFoundError, match="no such file"):
        files.stat("me/set/data")
    with pytest.raises(FileNotFoundError, match="HF_TOKEN"):
        files.read("me/set/none")


def test_nothing_can_be_written(files: HubFiles) -> None:
    for write in (lambda: files.put("a", b""), lambda: files.put_if_absent("a", b""), lambda: files.delete("a")):
        with pytest.raises(OSError, match="the hub is for reading here"):
            write()


def test_another_process_makes_a_client_of_its_own(files: HubFiles) -> None:
    again = pickle.loads(pickle.dumps(files))
    assert (again.root, "client" in vars(again)) == (ROOT, False)


def test_offline_there_is_one_clear_error(tmp_path: Path) -> None:
    code = (
        "from pipeline.config import SourceConfig; from pipeline.source.find import find_source_shards\n"
        "find_source_shards(SourceConfig(shards=('hf://datasets/me/set/data/*.parquet',)))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    last = done.stderr.splitlines()[-1]
    assert "ConfigError: source.shards: " in last
    assert "the hub does not answer: " in last
    assert "offline mode is enabled" in last


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.files.hub", None)
    with pytest.raises(ConfigError, match="pip install huggingface_hub"):
        files_at("hf://datasets/other")
