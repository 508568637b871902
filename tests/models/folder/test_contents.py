"""Tokenizer folders as files: config.json says no more than it must, and what it names is compared."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import TokenizerError
from pipeline.models.folder.contents import (
    FolderConfig,
    compare_files,
    parse_config,
    read_config,
    read_files,
    write_folder,
)
from pipeline.models.folder.weights import files_digest

FILES = {"model/config.json": b"{}", "codes.npy": b"some codes"}
IDENTITY = {"weights": files_digest(FILES), "any": ["thing"]}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    config = FolderConfig(kind="guest", files=tuple(FILES), identity=IDENTITY, image_size=(3, 4))
    write_folder(tmp_path, config, FILES)
    assert read_config(tmp_path) == config
    assert read_files(tmp_path, config) == FILES
    compare_files(tmp_path, read_files(tmp_path, config), IDENTITY["weights"])
    (tmp_path / "codes.npy").write_bytes(b"other codes")
    with pytest.raises(TokenizerError, match=r"not the files that config\.json was written for .*; copy all of them"):
        compare_files(tmp_path, read_files(tmp_path, config), IDENTITY["weights"])


def test_a_folder_of_ours_names_neither_kind_nor_files(tmp_path: Path) -> None:
    write_folder(tmp_path, FolderConfig(identity=IDENTITY), {"model.safetensors": b""})
    written = json.loads((tmp_path / "config.json").read_text())
    assert list(written) == ["format", "version", "identity", "image_size", "train"]
    assert read_config(tmp_path) == FolderConfig(kind="vqtok", files=("model.safetensors",), identity=IDENTITY)


@pytest.mark.parametrize(
    "name",
    ["../codes.npy", "a/../../b", "/codes.npy", "config.json", ".", "model.pt", "x/y.bin", "a\0b", "\x1b[2J", ""],
)
def test_files_lie_in_the_folder_and_run_no_code(name: str) -> None:
    with pytest.raises(ValidationError, match="names no file of the folder that can be opened safely"):
        FolderConfig(files=(name,), identity=IDENTITY)


def test_a_model_of_another_library_is_to_be_imported() -> None:
    with pytest.raises(
        TokenizerError, match=r"x/config\.json: the settings of another library's model; make a .*import"
    ):
        parse_config(b'{"_class_name": "VQModel", "act_fn": "silu"}', "x/config.json")
