"""Several stores as one: their rows behind each other, their vocabularies shared or stacked."""

import pickle
from itertools import islice
from pathlib import Path

import pytest
import torch
from fixtures_mixtures import WEIGHTS
from fixtures_store import store_of_rows

from pipeline.errors import StoreError, TokenizerError
from pipeline.loader import MixedBatch, MixtureLoader
from pipeline.models.layouts.cuts import CUTS
from pipeline.records import Geometry
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_mixtures"]

pytestmark = pytest.mark.usefixtures("small_blocks")


def steps_of(loader: MixtureLoader, steps: int) -> list[MixedBatch]:
    return list(islice(loader, steps))


def test_rows_keep_all_that_is_theirs(stores: list[TokenStore]) -> None:
    loader = MixtureLoader(stores, WEIGHTS, 30)
    for batch in steps_of(loader, 5):
        assert batch.mask is None
        assert set(batch.source.tolist()) == {0, 1, 2}
        for place, (number, row) in enumerate(zip(batch.source.tolist(), batch.row_in_source.tolist(), strict=True)):
            sample = stores[number][row]
            assert (batch.key[place], int(batch.label[place])) == (sample.key, sample.label)
            assert all(
                torch.equal(ours[place], theirs) for ours, theirs in zip(batch.idx_Bl, sample.idx_l, strict=True)
            )
        assert batch.label.dtype == torch.int64
        assert torch.equal(loader.idxBl_to_var_input(batch.idx_Bl), stores[0].idxBl_to_var_input(batch.idx_Bl))
    assert loader.vocab_size == 16
    assert torch.equal(loader.codebook, stores[0].codebook)


def test_rows_are_asked_for_as_of_one_store(stores: list[TokenStore]) -> None:
    mixed = MixtureLoader(stores, WEIGHTS, 30).stores
    last = int(mixed.starts[-1]) - 1
    assert mixed.keys_of([last, 0]) == [stores[-1].keys[-1], stores[0].keys[0]]
    assert mixed.labels_of([last, 0]).tolist() == [stores[-1][-1].label, stores[0][0].label]
    for row in (-1, last + 1):
        with pytest.raises(IndexError, match=f"of a store of {last + 1} samples"):
            mixed.labels_of([row])


def test_a_batch_stays_one_of_a_mixture(stores: list[TokenStore]) -> None:
    first, second = steps_of(MixtureLoader(stores, WEIGHTS, 30), 2)
    for batch in (pickle.loads(pickle.dumps(first)), first.to("cpu"), first[:], MixedBatch.concatenate([first])):
        assert isinstance(batch, MixedBatch)
        assert torch.equal(batch.source, first.source)
        assert torch.equal(batch.tokens, first.tokens)
        assert batch.key == first.key
    both = MixedBatch.concatenate([first, second])
    assert isinstance(both, MixedBatch)
    assert (len(both), both.key) == (60, first.key + second.key)
    assert first[10:13].key == first.key[10:13]


def test_stacked_vocabularies_do_not_meet(stores: list[TokenStore], mixable: Path) -> None:
    other = TokenStore(mixable / "other")
    sources = [stores[0], other, stores[1]]
    loader = MixtureLoader(sources, WEIGHTS, 40, offsets="stack")
    assert loader.stores.offsets == (0, 16, 0)
    assert (loader.vocab_size, tuple(loader.codebook.shape)) == (316, (316, 2))
    for batch in steps_of(loader, 5):
        assert batch.stored.dtype == torch.uint16
        x_BLC = loader.idxBl_to_var_input(batch.idx_Bl)
        for number, store in enumerate(sources):
            here = torch.nonzero(batch.source == number)[:, 0]
            own = store.read(batch.row_in_source[here.numpy()])
            offset = loader.stores.offsets[number]
            assert torch.equal(batch.tokens[here], own.tokens + offset)
            assert torch.equal(x_BLC[here], store.idxBl_to_var_input(own.idx_Bl))
    with pytest.raises(TokenizerError, match="316"):
        loader.idxBl_to_var_input([torch.tensor([[316]])])
    halves = loader.idxBl_to_var_input([torch.tensor([[16, 315]])], torch.float16)
    assert torch.equal(halves[0], other.codebook[[0, 299]].half())


def test_stores_of_one_dtype_may_need_a_larger_one(stores: list[TokenStore]) -> None:
    batch = steps_of(MixtureLoader(stores, WEIGHTS, 40, offsets=[0, 255, 1 << 20]), 1)[0]
    assert batch.stored.dtype == torch.uint32
    plain = steps_of(MixtureLoader(stores, WEIGHTS, 40), 1)[0]
    shift = torch.tensor([0, 255, 1 << 20])[batch.source][:, None]
    assert torch.equal(batch.tokens, plain.tokens + shift)


def test_stores_of_one_grid_have_it_and_others_are_named(tmp_path: Path) -> None:
    def opened(name: str, layout: str, grid: tuple[int, int]) -> TokenStore:
        geometry = Geometry(image_size=(64, 64), grid=grid, layout=layout, block_lengths=(4,) * 4, decodable=True)
        return TokenStore(store_of_rows(tmp_path / name, [9], vocab_size=16, geometry=geometry))

    one, same, wide = (
        opened("one", "quadrants", (4, 4)),
        opened("same", "quadrants", (4, 4)),
        opened("w", "quadrants", (2, 8)),
    )
    batch = next(iter(MixtureLoader([one, same], batch_size=6, offsets=[0, 0])))
    assert torch.equal(batch.grid, CUTS["quadrants"].join(batch.idx_Bl, (4, 4)))
    batch = next(iter(MixtureLoader([one, wide], batch_size=6)))
    with pytest.raises(
        StoreError, match=r"one has layout 'quadrants' on a grid of \(4, 4\), .*/w 'quadrants' on \(2, 8\)"
    ):
        _ = batch.grid


def test_there_is_room_for_tokens_of_one_s_own(stores: list[TokenStore]) -> None:
    loader = MixtureLoader(stores, WEIGHTS, 40, offsets=[10, 10, 10])
    assert loader.vocab_size == 26
    assert loader.codebook[:10].isnan().all()
    batch = steps_of(loader, 1)[0]
    assert int(batch.tokens.min()) >= 10
    own = [idx_BL - 10 for idx_BL in batch.idx_Bl]
    assert torch.equal(loader.idxBl_to_var_input(batch.idx_Bl), stores[0].idxBl_to_var_input(own))


def test_different_codebooks_are_refused_without_offsets(stores: list[TokenStore], mixable: Path) -> None:
    message = r"/a \(vocabulary \w{12}, 16 codes\) and .*/other \(\w{12}, 300 codes\) have different .*offsets='stack'"
    with pytest.raises(StoreError, match=message):
        MixtureLoader([stores[0], TokenStore(mixable / "other")])


def test_different_blocks_are_refused(stores: list[TokenStore], mixable: Path) -> None:
    for offsets in (None, "stack"):
        with pytest.raises(StoreError, match=r"/a has blocks of \(3, 5\) tokens, .*/blocks of \(4, 4\)"):
            MixtureLoader([stores[0], TokenStore(mixable / "blocks")], offsets=offsets)  # type: ignore[arg-type]


def test_embeddings_of_different_lengths_are_refused_when_they_are_looked_up(
    stores: list[TokenStore], mixable: Path
) -> None:
    loader = MixtureLoader([stores[0], TokenStore(mixable / "wide")], [1, 1], 20, offsets="stack")
    batch = steps_of(loader, 1)[0]
    with pytest.raises(StoreError, match=r"/a has embeddings of length 2, .*/wide of 3"):
        loader.idxBl_to_var_input(batch.idx_Bl)


def test_stores_without_a_table_are_compared_by_their_tokenizers(tmp_path: Path) -> None:
    def implicit(name: str, weights: str) -> TokenStore:
        identity = {"tokenizer": {"weights": weights}, "image": name}
        return TokenStore(store_of_rows(tmp_path / name, [9], identity=identity))

    one, same, other = implicit("one", "w"), implicit("same", "w"), implicit("other", "v")
    assert len(steps_of(MixtureLoader([one, same], batch_size=6), 1)[0]) == 6
    with pytest.raises(StoreError, match="different codebooks"):
        MixtureLoader([one, other])


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ("stacked", "offsets must be 'stack' or a number for each store, not 'stacked'"),
        ([0], "a number of at least 0 for each of 3 stores"),
        ([0, -1, 0], "a number of at least 0"),
        ([0, 8, 100], r"make tokens of .*/a \(0 .. 15\) equal to those of .*/b \(8 .. 23\)"),
    ],
)
def test_senseless_offsets_are_refused(stores: list[TokenStore], offsets: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureLoader(stores, WEIGHTS, offsets=offsets)
