"""Files of published weights: found where they are nested, and never run."""

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.networks.checkpoint import floats, read_checkpoint

NESTINGS = (("ema",), ("trainer", "vae_local"), ())
HERE = {"a": torch.arange(3.0)}


@pytest.mark.parametrize(
    "tree",
    [
        HERE,
        {"ema": HERE, "trainer": {"vae_local": {"b": torch.zeros(1)}}},
        {"trainer": {"vae_local": HERE}, "epoch": 3},
        {"ema": {}, "trainer": {"vae_local": HERE}},
    ],
)
def test_tensors_are_found_where_they_are_nested(tmp_path: Path, tree: Any) -> None:
    torch.save(tree, tmp_path / "model.pth")
    found = read_checkpoint(tmp_path / "model.pth", NESTINGS)
    assert found.keys() == {"a"}
    assert torch.equal(found["a"], HERE["a"])


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_are_those_inside_of_wrappers(tmp_path: Path, wrapper: str) -> None:
    torch.save({"ema": {f"{wrapper}{name}": value for name, value in HERE.items()}}, tmp_path / "model.pth")
    assert read_checkpoint(tmp_path / "model.pth", NESTINGS).keys() == {"a"}
    torch.save({f"{wrapper}a": HERE["a"], "b": HERE["a"]}, tmp_path / "model.pth")
    assert read_checkpoint(tmp_path / "model.pth", NESTINGS).keys() == {f"{wrapper}a", "b"}


def test_the_options_of_a_trainer_may_ride_along(tmp_path: Path) -> None:
    torch.save({"ema": HERE, "args": argparse.Namespace(lr=1e-4, betas=(0.9, 0.95))}, tmp_path / "model.pt")
    assert read_checkpoint(tmp_path / "model.pt", NESTINGS).keys() == {"a"}


def test_a_list_of_files_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(ConfigError, match="save its tensors in one"):
        read_checkpoint(tmp_path / "model.safetensors.index.json", NESTINGS)


def test_the_remedy_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the message says to do with a file that is trusted makes one that is read."""
    monkeypatch.chdir(tmp_path)
    for tree in ({"ema": HERE, "callbacks": torch.nn.Identity()}, Holder()):
        torch.save(tree, "model.pt")
        with pytest.raises(TokenizerError, match="where you trust it") as caught:
            read_checkpoint(Path("model.pt"), NESTINGS)
        exec(str(caught.value).partition("tensors alone: ")[2], {"torch": torch, "FILE": "model.pt"})
        assert read_checkpoint(Path("tensors.pt"), NESTINGS).keys() == {"a"}


class Holder(torch.nn.Module):
    """A model that was saved as a whole."""

    a: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", HERE["a"])


def test_safetensors_too(tmp_path: Path) -> None:
    save_file(HERE, tmp_path / "model.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "model.safetensors", NESTINGS)["a"], HERE["a"])


def test_tensors_that_repeat_what_is_stored_take_no_memory(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "model.pth")
    state = read_checkpoint(tmp_path / "model.pth", NESTINGS)
    with pytest.raises(
        TokenizerError, match=r"model\.pth: tensors of 4,398,046,511,104 bytes in [\d,]+ bytes of a file"
    ):
        floats(state, tmp_path / "model.pth")


def test_a_file_that_unpacks_to_far_more_is_not_opened(tmp_path: Path) -> None:
    torch.save(HERE, tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "model.pth", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/0", bytes(1 << 27))
    with pytest.raises(TokenizerError, match=r"model\.pth: unpacks to 134,[\d,]+ bytes, and is no checkpoint"):
        read_checkpoint(tmp_path / "model.pth", NESTINGS)


class Mischief:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("save", [torch.save, lambda tree, path: path.write_bytes(pickle.dumps(tree))])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    path = tmp_path / "model.ckpt"
    save({"state_dict": HERE, "callbacks": Mischief(tmp_path / "owned")}, path)
    with pytest.raises(TokenizerError, match=r"model\.ckpt: .*so it is not opened|cannot be read") as caught:
        read_checkpoint(path, NESTINGS)
    assert not (tmp_path / "owned").exists()
    assert "\n" not in str(caught.value)


def test_what_a_pickle_would_run_is_named(tmp_path: Path) -> None:
    torch.save({"callbacks": Mischief(tmp_path / "owned"), **HERE}, tmp_path / "model.pt")
    with pytest.raises(TokenizerError, match=r"holds more than tensors \(posix\.mkdir\).* torch\.save\("):
        read_checkpoint(tmp_path / "model.pt", NESTINGS)


def damaged(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], b"", b"<html>not found</html>", data[:-40]]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("which", range(4))
def test_damaged_files_say_so_on_one_line(tmp_path: Path, suffix: str, which: int) -> None:
    path = tmp_path / f"model{suffix}"
    (torch.save if suffix == ".pt" else save_file)(HERE, path)
    path.write_bytes(damaged(path.read_bytes())[which])
    with pytest.raises(TokenizerError, match=rf"model\{suffix}: .*get it anew") as caught:
        read_checkpoint(path, NESTINGS)
    assert "\n" not in str(caught.value)


def test_files_without_tensors_and_no_files_say_so(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": 1}}, tmp_path / "model.pt")
    with pytest.raises(TokenizerError, match=r"no tensors where .* \(ema, trainer/vae_local, the file itself\)"):
        read_checkpoint(tmp_path / "model.pt", NESTINGS)
    for path in (tmp_path, tmp_path / "nowhere.pt"):
        with pytest.raises(ConfigError, match=r"no such file; name a|a folder, and no file; name a"):
            read_checkpoint(path, NESTINGS)
