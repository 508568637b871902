"""The manifest as it is read: absent, damaged, of another version, up to date or not."""

import json
from pathlib import Path

import pytest
from fixtures_store import begin_store, finish_store, make_birth, make_shard

from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles
from pipeline.store.schema.manifest import Manifest, PartRecord, is_current, read_manifest
from pipeline.store.schema.seals import sealed, unsealed
from pipeline.store.writing.writer import commit_part

BIRTH = make_birth()


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """A store of the parts `a` and `b` with a manifest."""
    files = begin_store(tmp_path / "store", BIRTH)
    for part in "ab":
        commit_part(files, BIRTH, make_shard(BIRTH, part, 3, rejects=2))
    finish_store(files, BIRTH)
    return files


def test_there_is_none_before_the_first_completion(tmp_path: Path) -> None:
    assert read_manifest(LocalFiles(tmp_path), BIRTH) is None


def test_a_part_says_what_a_reader_needs(files: LocalFiles) -> None:
    manifest = read_manifest(files, BIRTH)
    assert manifest is not None
    record = manifest.parts[0]
    folder = files.path(f"tokens.zarr/parts/a.{record.attempt}")
    assert record.bytes == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert (record.written, record.rejected, record.unlabelled) == (3, 2, 1)
    assert isinstance(record, PartRecord)


def test_a_manifest_is_current_while_names_agree(files: LocalFiles) -> None:
    manifest = read_manifest(files, BIRTH)
    assert is_current(manifest, {"a", "b"}, {"a", "b"})
    assert not is_current(manifest, {"a", "b", "c"}, {"a", "b"})
    assert not is_current(manifest, {"a", "b"}, {"a"})
    assert not is_current(manifest, {"a"}, {"a", "b"})
    assert not is_current(None, set(), set())


@pytest.mark.parametrize("change", [{"version": 2}, {"takedown": ["key"]}, {"written": "many"}, {"parts": 1}])
def test_a_manifest_of_another_version_or_a_damaged_one_is_refused(
    files: LocalFiles, change: dict[str, object]
) -> None:
    path = files.path("manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptStore, match=r"manifest\.json: not a manifest .*; delete it and run vqtok tokenize"):
        read_manifest(files, BIRTH)


def test_a_manifest_survives_json(files: LocalFiles) -> None:
    data = files.read("manifest.json")
    record, has_seal = unsealed(data)
    assert has_seal
    assert sealed(Manifest.model_validate_json(record).to_json()) == data
