"""The birth: exclusive, compared field by field, and refused where this version cannot read it."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures_store import make_birth

from pipeline.errors import CorruptStore, IdentityMismatch, StoreError
from pipeline.files import LocalFiles
from pipeline.records import Geometry
from pipeline.store.schema import birth as birth_module
from pipeline.store.schema.birth import CLASSES, DIGESTS, Birth, create_or_compare, read_birth, smallest_token_dtype
from pipeline.store.schema.seals import sealed, unsealed


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [
        (1, "uint8"),
        (256, "uint8"),  # the largest token is 255
        (257, "uint16"),
        (65536, "uint16"),
        (65537, "uint32"),
    ],
)
def test_tokens_take_the_smallest_dtype_that_holds_them(vocab_size: int, dtype: str) -> None:
    assert smallest_token_dtype(vocab_size) == dtype


def test_the_first_birth_decides_and_an_equal_one_is_accepted(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    create_or_compare(files, make_birth())
    written = (tmp_path / "store.json").read_bytes()
    create_or_compare(files, make_birth())
    assert (tmp_path / "store.json").read_bytes() == written
    assert read_birth(files) == make_birth()


def test_a_rule_that_needs_no_arrays_is_written_as_it_ever_was(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    create_or_compare(files, make_birth())
    assert "rule_digest" not in json.loads((tmp_path / "store.json").read_text())
    with pytest.raises(IdentityMismatch, match=r'rule_digest: "12ab" here, null there'):
        create_or_compare(files, make_birth(rule_digest="12ab"))
    create_or_compare(LocalFiles(tmp_path / "ruled"), make_birth(rule_digest="12ab"))
    assert read_birth(LocalFiles(tmp_path / "ruled")) == make_birth(rule_digest="12ab")


def test_of_many_births_at_once_one_wins_and_the_others_compare_with_it(tmp_path: Path) -> None:
    refused: list[str] = []
    start = threading.Barrier(8)

    def be_born(number: int) -> None:
        start.wait()
        try:
            create_or_compare(LocalFiles(tmp_path), make_birth(identity={"number": number}))
        except IdentityMismatch as error:
            refused.append(str(error))

    threads = [threading.Thread(target=be_born, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = read_birth(LocalFiles(tmp_path)).identity["number"]
    assert len(refused) == 7
    assert all(f"{winner} there" in message for message in refused)
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


def test_every_field_that_differs_is_named_with_both_values(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    create_or_compare(files, make_birth(fields=["txt"]))
    before = (tmp_path / "store.json").read_bytes()
    other = make_birth(
        vocab_size=300,
        fields=["json", "txt"],
        codec="raw",
        identity={"tokenizer": {"weights": "other"}, "layout": "invented", "new": 1},
        var_input="sum",
    )
    with pytest.raises(IdentityMismatch) as caught:
        create_or_compare(files, other)
    message = str(caught.value)
    for line in (
        'identity.tokenizer.weights: "other" here, "none" there',
        "identity.new: 1 here, null there",
        "codebook.vocab_size: 300 here, 16 there",
        'token_dtype: "uint16" here, "uint8" there',
        'fields: ["json", "txt"] here, ["txt"] there',
        'codec: "raw" here, "lz4" there',
        'var_input: "sum" here, "lookup" there',
    ):
        assert line in message
    assert "identity.layout" not in message
    assert str(tmp_path) in message
    assert "Name another tokenize.store" in message
    assert (tmp_path / "store.json").read_bytes() == before


def test_the_fingerprint_is_that_of_the_identity_alone() -> None:
    assert make_birth().fingerprint == make_birth(codec="raw").fingerprint
    assert make_birth().fingerprint != make_birth(identity={"layout": "other"}).fingerprint
    swapped = make_birth(identity={"layout": "invented", "tokenizer": {"weights": "none"}})
    assert make_birth().fingerprint == swapped.fingerprint


def test_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere: not a token store \(no store.json\); run vqtok tokenize"):
        read_birth(LocalFiles(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a token store"):
        read_birth(LocalFiles(tmp_path / "file"))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"version": 2}, "version"),
        ({"kind": "ragged"}, "kind"),  # reserved: refused by a reader that does not know it
        ({"token_dtype": "int8"}, "token_dtype"),
        ({"geometry": {"views": 2}}, "geometry"),
    ],
)
def test_a_store_of_another_format_is_refused(tmp_path: Path, change: dict[str, object], where: str) -> None:
    tree = json.loads(make_birth().to_json()) | change
    (tmp_path / "store.json").write_text(json.dumps(tree))
    with pytest.raises(StoreError, match=rf"store.json: {where}.*later version than format 1"):
        read_birth(LocalFiles(tmp_path))


def test_features_are_written_only_where_there_are_some_and_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LocalFiles(tmp_path)
    assert b"features" not in make_birth(features=()).to_json()
    birth = make_birth(features=("view", "frame"))
    files.put("store.json", birth.to_json())
    assert list(json.loads(birth.to_json()))[:3] == ["format", "version", "features"]
    monkeypatch.setattr(birth_module, "FEATURES", frozenset({"view"}))
    with pytest.raises(StoreError, match=r"the store has 'frame' among its features .*; upgrade vqtok"):
        create_or_compare(files, birth)
    monkeypatch.setattr(birth_module, "FEATURES", frozenset({"view", "frame"}))
    assert create_or_compare(files, birth) == read_birth(files) == birth
    with pytest.raises(IdentityMismatch, match=r'features: \[\] here, \["view", "frame"\] there'):
        create_or_compare(files, make_birth())


def test_a_store_begun_before_there_were_digests_goes_on_without_them(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    older = create_or_compare(files, make_birth(features=()))
    before = files.read("store.json")
    assert create_or_compare(files, make_birth()) == older == read_birth(files)
    assert not older.has_digests
    assert files.read("store.json") == before


FAR = [10**6, 10**6]
"""Pixels of an image that no memory holds."""


@pytest.mark.parametrize("features", [(), ("digests",)])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"token_dtype": "uint16"', '"token_dtype": "uint8"'),
        ('"token_dtype": "uint16"', '"token_dtype": "uint32"'),
        ('"vocab_size": 300', '"vocab_size": 70000'),
        ('"vocab_size": 300', '"vocab_size": -300'),
        ('"vocab_size": 300', f'"vocab_size": 3{"0" * 40}'),
        ('"layout": "invented",\n  "block', '"layout": "quadrants",\n  "block'),
        ("   3,\n   5\n", "   3,\n   -5\n"),
        ("   3,\n   5\n", f"   3,\n   5{'0' * 12}\n"),
        ('"grid": [\n   1,', '"grid": [\n   0,'),
        (
            '"image_size": [\n   4,\n   32\n  ],\n  "grid": [\n   1,\n   8',
            f'"image_size": {FAR},\n  "grid": [60000, 60000',
        ),
        ('"fields": []', '"fields": ["../../precious"]'),
        ('"var_input": "lookup"', '"var_input": ".."'),
        ('"token_dtype": "uint16"', '"views": 4294967296,\n "token_dtype": "uint16"'),
    ],
)
def test_a_birth_that_contradicts_itself_is_refused(
    tmp_path: Path, old: str, new: str, features: tuple[str, ...]
) -> None:
    """With a digest of itself that is right, too: what a writer with a defect would leave."""
    birth = make_birth(vocab_size=300, features=features)
    text = birth.to_json().decode()
    assert old in text
    data = text.replace(old, new, 1).encode()
    (tmp_path / "store.json").write_bytes(sealed(data) if features else data)
    with pytest.raises(StoreError, match=r"store\.json: .*damaged"):
        read_birth(LocalFiles(tmp_path))


def test_scales_end_in_the_grid(tmp_path: Path) -> None:
    create_or_compare(LocalFiles(tmp_path), make_birth(geometry=_scales((2, 2))))
    assert read_birth(LocalFiles(tmp_path)).geometry.grid == (2, 2)
    create_or_compare(LocalFiles(tmp_path / "other"), make_birth(geometry=_scales((1000, 1000))))
    with pytest.raises(CorruptStore, match=r"store\.json: .*block_lengths \(1, 4\) on a grid of \(1000, 1000\)"):
        read_birth(LocalFiles(tmp_path / "other"))


def _scales(grid: tuple[int, int]) -> Geometry:
    return Geometry(image_size=(4000, 4000), grid=grid, layout="multiscale", block_lengths=(1, 4), decodable=True)


@pytest.mark.parametrize("change", [lambda data: data.replace(b"16", b"17", 1), lambda data: unsealed(data)[0]])
def test_a_birth_that_was_edited_or_lost_its_digest_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    files = LocalFiles(tmp_path)
    create_or_compare(files, make_birth())
    files.put("store.json", change(files.read("store.json")))
    with pytest.raises(CorruptStore, match=r"store\.json: .*sha256.*restore it"):
        read_birth(files)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_birth_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StoreError, match=r"store.json: .*damaged"):
        read_birth(LocalFiles(tmp_path))


def test_a_birth_survives_json() -> None:
    birth = make_birth(fields=["txt"])
    assert Birth.model_validate_json(birth.to_json()) == birth


def test_the_attributes_of_the_hierarchy_follow_from_the_birth_alone() -> None:
    birth = make_birth()
    assert birth.attributes == make_birth().attributes
    assert json.loads(json.dumps(birth.attributes))["geometry"]["block_lengths"] == [3, 5]
    assert birth.attributes["fingerprint"] == birth.fingerprint


@pytest.mark.parametrize("kind", ["folder", "links in a circle"])
def test_something_else_in_the_place_of_the_birth_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "store.json"
    path.mkdir() if kind == "folder" else path.symlink_to(path.name)
    with pytest.raises(CorruptStore, match=r"store\.json: no file, restore it from a copy of the store \("):
        read_birth(LocalFiles(tmp_path))
    with pytest.raises(CorruptStore, match=r"store\.json: no file"):
        create_or_compare(LocalFiles(tmp_path), make_birth())


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(StoreError, match="not a token store"):
        read_birth(LocalFiles(tmp_path / "file"))


def test_of_processes_that_see_other_classes_the_first_one_counts(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    features = {"features": (DIGESTS, CLASSES)}
    first = make_birth().model_copy(update={"classes": ("a", "c"), **features})
    assert create_or_compare(files, first) == first
    for later in (make_birth().model_copy(update={"classes": ("a", "b", "c"), **features}), make_birth()):
        assert create_or_compare(files, later).classes == ("a", "c")


class Overwriting(LocalFiles):
    """A place that says that it has created what was there."""

    def put_if_absent(self, path: str, data: bytes, durable: bool = True) -> bool:
        self.put(path, data, durable)
        return True


def test_a_store_that_has_moved_to_a_place_that_overwrites_is_not_gone_on_with(tmp_path: Path) -> None:
    birth = make_birth()
    create_or_compare(LocalFiles(tmp_path), birth)
    before = sorted(tmp_path.rglob("*"))
    assert create_or_compare(LocalFiles(tmp_path), birth) == birth
    with pytest.raises(StoreError, match="this place overwrites where a file should only be created"):
        create_or_compare(Overwriting(tmp_path), birth)
    assert sorted(tmp_path.rglob("*")) == before
