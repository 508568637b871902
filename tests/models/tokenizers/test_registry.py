"""The door for all kinds of tokenizers: which module reads a folder, and when it is read again."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import guest_kind
import pytest
import torch
from fixtures_store import cold_python, save_tiny_tokenizer
from guest_kind import NAME, PROJECTION, TABLES, ProjectionIdentity, save_projection
from support import ROOT

from pipeline.before import Before
from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.folder import weights as weights_module
from pipeline.models.folder.weights import files_digest
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.models.tokenizers.registry import (
    KINDS,
    completed_tokenizer,
    importers,
    load_tokenizer,
    tokenizer_identity,
)

pytest_plugins = ["fixtures_store"]

SAVES: dict[str, tuple[Callable[[Path], Path], str, tuple[str, ...]]] = {
    "ours": (save_tiny_tokenizer, "raster", ("model.safetensors",)),
    "a guest": (save_projection, "pyramid", (PROJECTION, TABLES)),
}
"""How to write a folder of each kind, a layout of it, and the files that decide tokens."""


@pytest.fixture(autouse=True)
def guest_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it takes."""
    monkeypatch.setitem(KINDS, NAME, guest_kind.__name__)


@pytest.mark.parametrize(("save", "layout", "files"), SAVES.values(), ids=SAVES)
def test_the_identity_of_a_folder_is_that_of_its_tokenizer(
    tmp_path: Path, save: Callable[[Path], Path], layout: str, files: tuple[str, ...]
) -> None:
    identity = tokenizer_identity(save(tmp_path))
    tokenizer: Tokenizer = load_tokenizer(tmp_path, layout)
    assert tokenizer.identity() == identity
    assert json.loads(json.dumps(identity)) == identity
    assert identity["weights"] == files_digest({name: (tmp_path / name).read_bytes() for name in files})
    assert identity.get("kind") == (None if files == ("model.safetensors",) else NAME)  # ours is as it ever was


@pytest.mark.parametrize(("save", "layout", "files"), SAVES.values(), ids=SAVES)
def test_a_change_of_any_file_is_noticed(
    tmp_path: Path, save: Callable[[Path], Path], layout: str, files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.models.folder.versions._SETTLED_NS", 0)
    save(tmp_path)
    for name in files:
        identity, path = tokenizer_identity(tmp_path), tmp_path / name
        before, times = path.read_bytes(), path.stat()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # damaged in place, and dated back
        for use in (tokenizer_identity, lambda folder: load_tokenizer(folder, layout)):
            with pytest.raises(TokenizerError, match=r"config\.json was written for \(sha256:.* here, sha256:"):
                use(tmp_path)
        path.unlink()
        with pytest.raises(TokenizerError, match=f"{name}: missing"):
            tokenizer_identity(tmp_path)
        path.write_bytes(before)
        assert tokenizer_identity(tmp_path) == identity


@pytest.mark.parametrize(("save", "layout", "files"), SAVES.values(), ids=SAVES)
def test_files_are_digested_once_and_again_after_any_change(
    tmp_path: Path, save: Callable[[Path], Path], layout: str, files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, digested = save(tmp_path / "tokenizer"), 0
    digest = weights_module.weights_digest

    def noted(data: bytes) -> str:
        nonlocal digested
        digested += 1
        return digest(data)

    monkeypatch.setattr(weights_module, "weights_digest", noted)
    tokenizer_identity(folder)
    identity = tokenizer_identity(folder)
    assert digested == 2  # written a moment ago: it may be written again unnoticed
    monkeypatch.setattr("pipeline.models.folder.versions._SETTLED_NS", 0)
    for _ in range(3):
        assert tokenizer_identity(folder) == identity
        assert load_tokenizer(folder, layout).identity() == identity
        identity["normalization"]["mean"] = None  # a caller's own
        identity = tokenizer_identity(folder)
        assert identity["normalization"]["mean"] is not None
    assert digested == 3
    for name in files:
        path, times = folder / name, (folder / name).stat()
        shutil.copyfile(path, tmp_path / "copy")
        os.utime(tmp_path / "copy", ns=(times.st_atime_ns, times.st_mtime_ns))
        (tmp_path / "copy").replace(path)  # the same size and time, and another file
        assert tokenizer_identity(folder) == identity
    assert digested == 3 + len(files)


def test_a_guest_has_the_layouts_that_it_brings(tmp_path: Path) -> None:
    save_projection(tmp_path)
    tokenizer = load_tokenizer(tmp_path, "pyramid")
    geometry = tokenizer.geometry((16, 24))
    assert (geometry.layout, geometry.grid, geometry.block_lengths) == ("pyramid", (2, 3), (1, 6))
    idx_Bl = tokenizer.encode(torch.randn(5, 3, 16, 24))
    assert [tuple(block.shape) for block in idx_Bl] == [(5, 1), (5, 6)]
    assert tokenizer.decode(idx_Bl, (2, 3)).shape == (5, 3, 16, 24)
    with pytest.raises(ConfigError, match="no block layout 'quadrants'; known: pyramid"):
        load_tokenizer(tmp_path, "quadrants")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown kind": ({"kind": "var2"}, rf"config.json: unknown kind 'var2'; known: vqtok, .*{NAME}"),
    "kind of another type": ({"kind": 3}, r"config.json: kind: Input should be a valid string"),
    "identity of another kind": ({"kind": "vqtok"}, r"config.json: identity.architecture: Field required"),
    "no files": ({"files": []}, r"config.json: files: .*at least 1"),
    "a file elsewhere": ({"files": [PROJECTION, "../codes.npy"]}, r"config.json: files: .*'\.\./codes.npy' names no"),
    "an absolute path": ({"files": ["/etc/passwd"]}, r"config.json: files: .*'/etc/passwd' names no file"),
    "a pickle": ({"files": ["model.pt"]}, r"config.json: files: .*'model.pt' names no file"),
    "one file less": ({"files": [PROJECTION]}, r"not the weights that config.json was written for"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_a_folder_that_cannot_be_read_says_why(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_projection(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    for use in (tokenizer_identity, lambda folder: load_tokenizer(folder, "pyramid")):
        with pytest.raises(TokenizerError, match=message) as caught:
            use(tmp_path)
        assert str(tmp_path) in str(caught.value)


class LaterIdentity(ProjectionIdentity):
    """What a later version of the guest has."""

    cosine: Annotated[bool, Before(False)] = False


def test_a_key_that_came_later_is_what_was_done_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = tokenizer_identity(save_projection(tmp_path))
    assert completed_tokenizer(older) == older
    monkeypatch.setattr(guest_kind, "KIND", replace(guest_kind.KIND, identity=LaterIdentity.model_validate))
    assert completed_tokenizer(older) == {**older, "cosine": False}
    assert completed_tokenizer({**older, "cosine": True}) == {**older, "cosine": True}
    assert tokenizer_identity(tmp_path) == older  # and is written as it ever was
    for foreign in ({"kind": "var2", "a": 1}, {"kind": ["x"]}, {"weights": "none"}):
        assert completed_tokenizer(foreign) == foreign


def install(site: Path, **modules: str) -> None:
    """A package as `pip` leaves it, with these kinds, each of the module that it names."""
    package = site / "guests-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: guests\nVersion: 1.0\n")
    lines = "".join(f"{name} = {module}\n" for name, module in modules.items())
    (package / "entry_points.txt").write_text(f"[vqtok.tokenizers]\n{lines}")


@pytest.mark.parametrize("named", [guest_kind.__name__, f"{guest_kind.__name__}:KIND"])
def test_installed_packages_bring_kinds_and_identities_need_no_torch(tmp_path: Path, named: str) -> None:
    install(tmp_path / "packages", **{NAME: named})
    folder = save_projection(tmp_path / "tokenizer")
    done = cold_python(
        f"import sys; sys.path[:0] = [{str(tmp_path / 'packages')!r}, {str(ROOT / 'tests')!r}]\n"
        "from pipeline.models.tokenizers.registry import tokenizer_identity\n"
        f"print(tokenizer_identity({str(folder)!r})['kind'], 'torch' in sys.modules)"
    )
    assert (done.out, done.err) == (f"{NAME} False\n", "")


def test_a_broken_package_stands_in_the_way_of_no_other_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, lost="no_such_module", empty="guests_of_no_kind")
    (tmp_path / "guests_of_no_kind.py").write_text("KIND = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        assert {"var", "llamagen", "taming"} <= importers().keys()
    lost, empty = sorted(capfd.readouterr().err.splitlines(), reverse=True)  # each is told once
    assert lost.startswith(
        "vqtok: kind 'lost': the installed package that brings it has none in its module no_such_module"
    )
    assert "(ModuleNotFoundError: No module named 'no_such_module'); mend or uninstall it" in lost
    assert "kind 'empty'" in empty and "its KIND is no pipeline.models.tokenizers.kind.Kind" in empty
    save_projection(tmp_path / "tokenizer")
    config = json.loads((tmp_path / "tokenizer/config.json").read_text())
    (tmp_path / "tokenizer/config.json").write_text(json.dumps({**config, "kind": "lost"}))
    with pytest.raises(TokenizerError, match="kind 'lost': the installed package"):
        load_tokenizer(tmp_path / "tokenizer")
    assert completed_tokenizer({"kind": "lost", "a": 1}) == {"kind": "lost", "a": 1}
