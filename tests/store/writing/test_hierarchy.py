"""The Zarr hierarchy of a store: made whole after any interruption, by any number of processes at once."""

import hashlib
import signal
from pathlib import Path

import numpy as np
import pytest
import zarr
from fixtures_store import Child, Halt, all_files, begin_store, make_birth

from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles
from pipeline.store.writing.hierarchy import check_codebook, check_root, prepare_hierarchy, table_digest

TABLE = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
BIRTH = make_birth(table=TABLE)


def prepare(folder: Path) -> None:
    prepare_hierarchy(LocalFiles(folder), BIRTH, TABLE)


def test_the_digest_of_a_table_is_that_of_its_little_endian_bytes() -> None:
    assert table_digest(TABLE) == hashlib.sha256(TABLE.tobytes()).hexdigest()
    assert table_digest(np.asfortranarray(TABLE)) == table_digest(TABLE.astype(">f4")) == table_digest(TABLE)


def test_the_codebook_comes_back_bit_for_bit(tmp_path: Path) -> None:
    files = begin_store(tmp_path, BIRTH, TABLE)
    table = check_codebook(files, BIRTH)
    assert table is not None
    assert table.dtype == np.float32
    assert table.tobytes() == TABLE.tobytes()
    assert np.array_equal(zarr.open_array(str(tmp_path / "tokens.zarr/codebook"), mode="r")[...], TABLE)


def test_a_tokenizer_without_a_table_has_none(tmp_path: Path) -> None:
    files = begin_store(tmp_path, make_birth())
    assert check_codebook(files, make_birth()) is None
    assert not (tmp_path / "tokens.zarr/codebook").exists()


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    prepare(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_killed_preparation_is_completed_by_the_next(tmp_path: Path) -> None:
    """Killed before each of its steps on the store: every state that a crash can leave."""
    prepare(tmp_path / "whole")
    kills = 0
    for event, steps in (("os.rename", 4), ("os.mkdir", 7)):
        for step in range(1, steps + 1):
            folder = tmp_path / f"{event}-{step}"
            halt = Halt(event, str(folder), step)
            child = Child(prepare, folder, folder=tmp_path / "output", halt=halt)
            kills += child.wait().status == -signal.SIGKILL
            prepare(folder)
            assert without_temporary(folder) == all_files(tmp_path / "whole")
    assert kills >= 9


def test_several_processes_may_prepare_at_once(tmp_path: Path) -> None:
    prepare(tmp_path / "whole")
    children = [Child(prepare, tmp_path / "store", folder=tmp_path / "output") for _ in range(4)]
    assert [child.wait().status for child in children] == [0] * 4
    assert all_files(tmp_path / "store") == all_files(tmp_path / "whole")


DAMAGED_ROOTS = {
    "deleted": lambda root: (root / "zarr.json").unlink(),
    "no JSON": lambda root: (root / "zarr.json").write_text("{"),
    "other attributes": lambda root: zarr.open_group(str(root)).attrs.update({"fingerprint": "0"}),
    "no parts": lambda root: (root / "parts/zarr.json").unlink(),
    "another group": lambda root: zarr.open_group(str(root)).create_group("other"),
}


@pytest.mark.parametrize("damage", DAMAGED_ROOTS)
def test_a_damaged_root_is_found(tmp_path: Path, damage: str) -> None:
    files = begin_store(tmp_path, BIRTH, TABLE)
    check_root(files, BIRTH)
    DAMAGED_ROOTS[damage](tmp_path / "tokens.zarr")
    with pytest.raises(CorruptStore, match=r"tokens\.zarr/zarr\.json: the root of the hierarchy"):
        check_root(files, BIRTH)


@pytest.mark.parametrize("name", ["zarr.json", "c/0/0"])
@pytest.mark.parametrize("damage", ["delete", "truncate", "flip"])
def test_a_damaged_codebook_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    files = begin_store(tmp_path, BIRTH, TABLE)
    path = tmp_path / "tokens.zarr/codebook" / name
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    with pytest.raises(CorruptStore, match=r"tokens\.zarr/codebook: the codebook"):
        check_codebook(files, BIRTH)


def test_the_codebook_of_another_store_is_refused(tmp_path: Path) -> None:
    files = begin_store(tmp_path, BIRTH, TABLE)
    with pytest.raises(CorruptStore, match=r"the codebook is not the one that store\.json names"):
        check_codebook(files, make_birth(table=TABLE + 1))


def without_temporary(folder: Path) -> dict[str, bytes]:
    return {path: data for path, data in all_files(folder).items() if "/.tmp-" not in path}
