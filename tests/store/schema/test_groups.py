"""The groups above the parts: as the birth says, whoever looks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures_store import begin_store, make_birth

from pipeline.errors import CorruptStore
from pipeline.store.schema.groups import check_groups

BIRTH = make_birth()


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("group", [".", "parts"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_text("{"), "no metadata of a group"),
        (lambda path: path.write_text("[]"), "no metadata of a group"),
        (lambda path: change(path, attributes={"fingerprint": "0"}), r"not as store\.json says"),
        (lambda path: change(path, node_type="array"), "no metadata of a group"),
        (lambda path: (shutil.move(path, path.with_name("moved")), path.mkdir()), "no file"),
    ],
)
def test_a_damaged_group_is_named(tmp_path: Path, group: str, damage: Callable[[Path], object], said: str) -> None:
    files = begin_store(tmp_path, BIRTH)
    check_groups(files, BIRTH)
    damage(tmp_path / "tokens.zarr" / group / "zarr.json")
    with pytest.raises(CorruptStore, match=rf"zarr\.json: .*{said}"):
        check_groups(files, BIRTH)
