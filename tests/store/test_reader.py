"""`TokenStore`: a store as one long sequence of samples."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from fixtures_store import (
    COLLECTION,
    REJECTED,
    ROWS,
    Job,
    begin_store,
    cold_python,
    finish_store,
    make_birth,
    make_shard,
    store_of_rows,
)

from pipeline.errors import CorruptStore, IncompleteStore, StoreError, TokenizerError
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.source.find import part_name
from pipeline.store import PartCache, TokenStore
from pipeline.store.reader import TokenBatch
from pipeline.store.writing.writer import commit_part

pytest_plugins = ["fixtures_store"]

TABLE = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
COUNTS = [5, 0, 1, 9]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Parts of 5, 0, 1 and 9 rows, blocks of 3 and 5 tokens."""
    return TokenStore(store_of_rows(tmp_path_factory.mktemp("reader") / "store", COUNTS, TABLE))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """All tokens of `store`, int64 [15, 8]."""
    shards = [make_shard(make_birth(table=TABLE), f"part{number:03d}", rows) for number, rows in enumerate(COUNTS)]
    return np.concatenate([shard.tokens for shard in shards]).astype(np.int64)


def all_tokens(batch: TokenBatch) -> np.ndarray:
    return torch.cat(batch.idx_Bl, dim=1).numpy()


def test_a_store_is_a_sequence_of_samples(store: TokenStore, tokens: np.ndarray) -> None:
    assert len(store) == 15
    for row in (0, 4, 5, 6, 14, -1, -15):
        sample = store[row]
        assert [block.shape for block in sample.idx_l] == [(3,), (5,)]
        assert torch.cat(sample.idx_l).tolist() == tokens[row].tolist()
        assert sample.idx_l[0].dtype == torch.int64
    assert (store[5].key, store[5].label) == ("part002/0-ü", -1)
    assert (store[-1].key, store[-1].label) == ("part003/8-ü", 0)
    assert [sample.key for sample in store] == list(store.keys)


@pytest.mark.parametrize("row", [15, -16, 10**9])
def test_a_row_outside_is_an_index_error(store: TokenStore, row: int) -> None:
    with pytest.raises(IndexError):
        store[row]
    for ask in (store.read, store.keys_of, store.labels_of):
        with pytest.raises(IndexError, match="of a store of 15 samples"):
            ask([0, row])  # type: ignore[operator]


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(3, 9),
        slice(None, None, -2),
        slice(20, 30),
        [],
        [7],
        [14, 0, 5],
        [5, 5, 4, 4, 5],
        np.array([2, 12], np.uint8),
        torch.tensor([6, 1]),
        range(2, 8, 3),
    ],
    ids=str,
)
def test_rows_come_in_the_order_asked_for(store: TokenStore, tokens: np.ndarray, rows: object) -> None:
    wanted = list(range(15))[rows] if isinstance(rows, slice) else [int(row) for row in rows]  # type: ignore[attr-defined]
    batch = store.read(rows)  # type: ignore[arg-type]
    assert len(batch) == len(wanted)
    assert [block.shape for block in batch.idx_Bl] == [(len(wanted), 3), (len(wanted), 5)]
    assert np.array_equal(all_tokens(batch), tokens[wanted])
    assert batch.key == [store.keys[row] for row in wanted]
    assert batch.label.tolist() == [int(store.labels[row]) for row in wanted]
    assert batch.label.dtype == torch.int64
    assert store.keys_of(rows) == batch.key  # type: ignore[arg-type]
    assert store.labels_of(rows).tolist() == batch.label.tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [[True, False], [0.5], [[1, 2]], ["1"]], ids=str)
def test_what_names_no_rows_is_refused(store: TokenStore, rows: list[object]) -> None:
    """A mask would silently be read as rows 0 and 1."""
    for ask in (store.read, store.keys_of, store.labels_of):
        with pytest.raises(TypeError, match="row numbers"):
            ask(rows)  # type: ignore[operator]


def test_batches_cover_the_store_in_order(store: TokenStore, tokens: np.ndarray) -> None:
    batches = list(store.batches(4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 3]
    assert np.array_equal(np.concatenate([all_tokens(batch) for batch in batches]), tokens)


def test_batches_are_cut_joined_and_moved(store: TokenStore, tokens: np.ndarray) -> None:
    batch = store.read(slice(None))
    again = TokenBatch.concatenate([batch[:4], batch[4:4], batch[4:]])
    assert (again.key, again.label.tolist()) == (batch.key, batch.label.tolist())
    assert np.array_equal(all_tokens(again.to("cpu")), tokens)


def test_a_store_says_what_it_holds(store: TokenStore) -> None:
    assert (store.vocab_size, store.embedding_dim) == (16, 2)
    assert store.block_lengths == (3, 5)
    assert store.geometry.num_tokens == 8
    assert store.part_starts.tolist() == [0, 5, 5, 6, 15]
    assert store.codebook.dtype == torch.float32
    assert store.codebook.numpy().tobytes() == TABLE.tobytes()


def test_embeddings_are_rows_of_the_codebook(store: TokenStore, tokens: np.ndarray) -> None:
    x_BLC = store.idxBl_to_var_input(store.read([3, 14]).idx_Bl)
    assert (x_BLC.shape, x_BLC.dtype) == ((2, 8, 2), torch.float32)
    assert x_BLC.numpy().tobytes() == TABLE[tokens[[3, 14]]].tobytes()


@pytest.mark.parametrize("index", [-1, 16])
def test_an_index_outside_the_codebook_is_refused(store: TokenStore, index: int) -> None:
    blocks = [torch.zeros(2, 3, dtype=torch.int64), torch.full((2, 5), index)]
    with pytest.raises(TokenizerError, match=rf"code index {index} is not in 0 \.\. 15"):
        store.idxBl_to_var_input(blocks)


def test_another_rule_than_lookup_is_refused_with_its_name(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path, [2], TABLE, var_input="residual-sum"))
    with pytest.raises(
        StoreError, match=r"the rule 'residual-sum', and .* knows lookup, multiscale; .*use the tokenizer itself"
    ):
        store.idxBl_to_var_input(store.read([0]).idx_Bl)


def test_a_store_without_a_table_says_so(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path, [2]))
    with pytest.raises(StoreError, match="a codebook of kind implicit has no table"):
        _ = store.codebook


def test_a_store_of_nothing_is_read(tmp_path: Path) -> None:
    for counts in ([], [0, 0]):
        store = TokenStore(store_of_rows(tmp_path / str(len(counts)), counts))
        assert (len(store), list(store.keys), store.labels.tolist(), list(store)) == (0, [], [], [])
        assert store.read([]).idx_Bl[1].shape == (0, 5)
        with pytest.raises(IndexError):
            store[0]


def test_without_a_manifest_only_what_is_committed_can_be_read(tmp_path: Path) -> None:
    birth = make_birth()
    files = begin_store(tmp_path, birth)
    commit_part(files, birth, make_shard(birth, "b", 3))
    with pytest.raises(IncompleteStore, match=r"run the same vqtok tokenize again .* partial=True"):
        TokenStore(tmp_path)
    assert list(TokenStore(tmp_path, partial=True).keys) == make_shard(birth, "b", 3).keys
    finish_store(files, birth)
    commit_part(files, birth, make_shard(birth, "a", 2))
    assert len(TokenStore(tmp_path)) == 3  # as it was when last completed
    assert len(TokenStore(tmp_path, partial=True)) == 5
    finish_store(files, birth, generation=2)
    assert list(TokenStore(tmp_path).keys) == list(TokenStore(tmp_path, partial=True).keys)
    assert TokenStore(tmp_path).content_digest == TokenStore(tmp_path, partial=True).content_digest


def test_no_store_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a token store"):
        TokenStore(tmp_path)


def test_a_store_nearby_is_named(tmp_path: Path) -> None:
    """The folder of a run that it is in, and the hierarchy in it, are easily named in its place."""
    store = store_of_rows(tmp_path / "run/store", [3])
    with pytest.raises(StoreError, match=rf"run: not a token store .*; {store} is one$"):
        TokenStore(tmp_path / "run")
    with pytest.raises(StoreError, match=rf"not a token store .*; name the folder that it is in, {store}$"):
        TokenStore(store / "tokens.zarr")


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    store_of_rows(tmp_path, [3])
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CorruptStore, match=r"manifest\.json"):
        TokenStore(tmp_path)


def test_damage_met_while_reading_is_refused(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path, [4, 4]))
    (file,) = tmp_path.glob("tokens.zarr/parts/part001.*/tokens/c/0/0")
    file.unlink()
    assert len(store.read(range(4))) == 4
    with pytest.raises(CorruptStore, match=r"parts/part001\.\w+/tokens: cannot be read: its chunk file is missing"):
        store.read(range(8))


@pytest.mark.parametrize("cached", [False, True])
def test_a_store_that_was_made_anew_is_to_be_opened_again_and_not_deleted_from(tmp_path: Path, cached: bool) -> None:
    folder = tmp_path / "store"
    cache = PartCache(tmp_path / "cache", 1 << 20) if cached else None
    store = TokenStore(store_of_rows(folder, [4, 4]), cache=cache)
    store.read(range(4))
    (file,) = folder.glob("tokens.zarr/parts/part001.*/tokens/c/0/0")
    kept = file.read_bytes()
    file.unlink()
    with pytest.raises(CorruptStore, match=r"missing; delete commits/part001\.json and manifest\.json.* from a copy"):
        store.read(range(8))
    file.write_bytes(kept)

    shutil.rmtree(folder)
    with pytest.raises(CorruptStore, match=r"missing; nor is there commits/part001\.json any more.*open it again$"):
        store.read(range(8))
    store_of_rows(folder, [4, 4])
    with pytest.raises(CorruptStore, match=r"missing; commits/part001\.json names another attempt .*open it again$"):
        store.read(range(8))
    assert len(TokenStore(folder, cache=cache).read(range(8))) == 8


# --- a store that vqtok tokenize made ---------------------------------------------------------------------


def test_rows_are_ordered_by_part_then_as_in_the_source(finished: Job) -> None:
    expected = [key for path in sorted(COLLECTION, key=part_name) for key, _ in COLLECTION[path] if key not in REJECTED]
    assert list(TokenStore(finished.store).keys) == expected
    assert len(expected) == ROWS


def test_codebook_and_embeddings_equal_the_models_bit_for_bit(finished: Job) -> None:
    store = TokenStore(finished.store)
    tokenizer = load_tokenizer(finished.tokenizer, "quadrants")
    assert torch.equal(store.codebook, tokenizer.model.quantize.get_codebook())  # type: ignore[attr-defined]
    idx_Bl = store.read(slice(None)).idx_Bl
    ours, theirs = store.idxBl_to_var_input(idx_Bl), tokenizer.model.idxBl_to_var_input(idx_Bl)  # type: ignore[attr-defined]
    assert (ours.shape, ours.dtype) == ((ROWS, 24, 4), theirs.dtype)
    assert ours.numpy().tobytes() == theirs.detach().numpy().tobytes()


WALK = """
import json, sys, zarr
from pathlib import Path
store = Path(sys.argv[1])
root = zarr.open_group(str(store / "tokens.zarr"), mode="r")
arrays = {path: node[...] for path, node in root.members(max_depth=None) if isinstance(node, zarr.Array)}
manifest = json.loads((store / "manifest.json").read_text())
tokens = [arrays[f"parts/{p['part']}.{p['attempt']}/tokens"].tolist() for p in manifest["parts"]]
print(json.dumps([dict(root.attrs), sorted(path.split("/")[-1] for path in arrays), sum(tokens, [])]))
assert not any(name.split(".")[0] in ("pipeline", "torch") for name in sys.modules)
"""


def test_plain_zarr_walks_the_store_without_a_warning_and_reads_the_tokens(finished: Job) -> None:
    done = cold_python(WALK, finished.store, options=["-W", "error"])
    assert (done.status, done.err) == (0, "")
    attributes, names, tokens = json.loads(done.out)
    assert names == sorted(["codebook", *["tokens", "label", *["data", "offsets"] * 2, "present"] * len(COLLECTION)])
    assert attributes["geometry"]["layout"] == "quadrants"
    assert attributes["fingerprint"] == TokenStore(finished.store)._birth.fingerprint
    assert np.array_equal(tokens, all_tokens(TokenStore(finished.store).read(slice(None))))


def test_consolidated_or_not_a_group_opens(finished: Job) -> None:
    group = zarr.open_group(str(finished.store / "tokens.zarr"), mode="r")
    assert sorted(group.group_keys()) == ["parts"]
    assert sorted(group.array_keys()) == ["codebook"]


def test_code_counts_are_those_of_the_tokens(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path / "store", [25, 0, 15]))
    tokens = torch.cat(store.read(slice(None)).idx_Bl, dim=1)
    assert store.code_counts.tolist() == torch.bincount(tokens.flatten(), minlength=store.vocab_size).tolist()
