"""The Zarr hierarchy of a store: made whole after any interruption, by any number of processes at once."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from fixtures_store import Child, Halt, all_files, begin_store, make_birth

from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles
from pipeline.store.arrays.codebook import check_codebook, table_digest
from pipeline.store.writing.hierarchy import (
    check_root,
    check_rule,
    prepare_hierarchy,
    rule_digest,
)

TABLE = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
BIRTH = make_birth(table=TABLE)


ARRAYS = {
    "phi": np.random.default_rng(1).normal(size=(4, 2, 2, 3, 3)).astype(np.float32),
    "first": np.arange(7, dtype=np.uint16),
    "none": np.empty((0, 3), np.float32),
}
RULED = make_birth(table=TABLE, var_input="sums", rule_digest=rule_digest(ARRAYS))
"""The birth of a store whose rule needs arrays."""


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


def test_what_a_rule_needs_comes_back_bit_for_bit(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    for _ in range(2):
        prepare_hierarchy(files, RULED, TABLE, ARRAYS)
    found = check_rule(files, RULED)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert np.array_equal(zarr.open_array(str(tmp_path / "tokens.zarr/rule/sums" / name), mode="r")[...], array)
    check_root(files, RULED)


def test_a_rule_that_needs_nothing_leaves_nothing(tmp_path: Path) -> None:
    prepare_hierarchy(LocalFiles(tmp_path), BIRTH, TABLE, {})
    assert rule_digest({}) is None
    assert check_rule(LocalFiles(tmp_path), BIRTH) == {}
    assert not (tmp_path / "tokens.zarr/rule").exists()


def test_arrays_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptStore, match=r"tokens\.zarr/rule/sums: the rule's arrays are not those that store\.json"):
        prepare_hierarchy(LocalFiles(tmp_path), RULED, TABLE, {**ARRAYS, "first": ARRAYS["first"] + 1})


def test_a_rule_that_the_birth_does_not_name_is_found(tmp_path: Path) -> None:
    files = begin_store(tmp_path, BIRTH, TABLE)
    zarr.open_group(str(tmp_path / "tokens.zarr")).create_group("rule")
    with pytest.raises(CorruptStore, match="the root of the hierarchy is not as"):
        check_root(files, BIRTH)


def as_zarr_2(folder: Path, marker: Path) -> None:
    """Zarr 2 in the place of an array, with a filter that runs code."""
    (folder / "zarr.json").unlink()
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C"}
    (folder / ".zarray").write_text(json.dumps({**array, "compressor": None, "filters": [{"id": "pickle"}]}))
    (folder / "0").write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % str(marker).encode())


def edited(folder: Path, **changes: object) -> None:
    path = folder / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


FORGED: dict[str, Callable[[Path, Path], object]] = {
    "Zarr 2 with code": as_zarr_2,
    "objects": lambda folder, marker: edited(folder, data_type="object"),
    "a type with settings": lambda folder, marker: edited(folder, data_type={"name": "struct", "configuration": {}}),
    "a codec of another package": lambda folder, marker: edited(folder, codecs=[{"name": "numcodecs.pickle"}]),
    "no codec": lambda folder, marker: edited(folder, codecs=[]),
    "terabytes": lambda folder, marker: edited(folder, shape=[1 << 40, 2, 2, 3, 3]),
    "a shape that is none": lambda folder, marker: edited(folder, shape="many"),
    "no chunk file": lambda folder, marker: shutil.rmtree(folder / "c"),
    "not JSON": lambda folder, marker: (folder / "zarr.json").write_text("["),
    "endless": lambda folder, marker: (folder / "zarr.json").unlink() or (folder / "zarr.json").symlink_to("/dev/zero"),
    "a FIFO": lambda folder, marker: shutil.rmtree(folder / "c/0") or os.mkfifo(folder / "c/0"),
    "something beside it": lambda folder, marker: (folder.parent / "other").mkdir(),
    "another rule": lambda folder, marker: shutil.copytree(folder.parent, folder.parent.with_name("other")),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_arrays_of_a_rule_run_no_code_and_take_no_memory(forge: Callable[[Path, Path], object], tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "store")
    prepare_hierarchy(files, RULED, TABLE, ARRAYS)
    forge(tmp_path / "store/tokens.zarr/rule/sums/phi", tmp_path / "ran")
    with pytest.raises(CorruptStore, match=r"tokens\.zarr/rule/sums: the rule's arrays"):
        check_rule(files, RULED)
    with pytest.raises(CorruptStore):
        prepare_hierarchy(files, RULED, TABLE, ARRAYS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("forge", ["Zarr 2 with code", "objects", "a codec of another package", "endless"])
def test_the_codebook_runs_no_code_either(forge: str, tmp_path: Path) -> None:
    files = begin_store(tmp_path / "store", BIRTH, TABLE)
    FORGED[forge](tmp_path / "store/tokens.zarr/codebook", tmp_path / "ran")
    with pytest.raises(CorruptStore, match=r"tokens\.zarr/codebook"):
        check_codebook(files, BIRTH)
    with contextlib.suppress(CorruptStore):
        check_root(files, BIRTH)
    assert not (tmp_path / "ran").exists()


def without_temporary(folder: Path) -> dict[str, bytes]:
    return {path: data for path, data in all_files(folder).items() if "/.tmp-" not in path}
