"""Names that are imported when they are asked for."""

import sys
from pathlib import Path

import pytest

from pipeline import models
from pipeline.lazy import lazy_names


def test_what_goes_wrong_in_an_import_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import sys\nsys.no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    find = lazy_names("package", {"Thing": "half_installed"})
    with pytest.raises(ImportError, match="half_installed cannot be imported: module 'sys' has no attribute"):
        find("Thing")


def test_a_damaged_installation_is_not_taken_for_a_missing_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.models.networks.vqvae", raising=False)
    monkeypatch.delattr("torch.nn.Module")
    with pytest.raises(ImportError, match="vqvae cannot be imported"):
        from pipeline.models import SimpleVQVAE  # noqa: F401


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match=r"module 'pipeline\.models' has no attribute 'Nonsense'"):
        models.Nonsense  # noqa: B018
