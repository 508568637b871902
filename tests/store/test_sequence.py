"""Tokens as the ids of a language model, and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_store import store_of_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples

from pipeline.errors import TokenizerError
from pipeline.models.layouts.cuts import CUTS
from pipeline.records import Geometry
from pipeline.store import TokenStore
from pipeline.store.sequence import SequenceFormat

pytest_plugins = ["fixtures_store"]


def laid_out(layout: str, grid: tuple[int, int], lengths: tuple[int, ...]) -> Geometry:
    return Geometry(image_size=(64, 64), grid=grid, layout=layout, block_lengths=lengths, decodable=True)


QUADRANTS = laid_out("quadrants", (2, 3), CUTS["quadrants"].block_lengths((2, 3)))
SCALES = laid_out("multiscale", (2, 2), (1, 4))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """12 rows of a grid of 2 x 3 tokens in quadrants, labels -1 to 5, 300 codes."""
    folder = tmp_path_factory.mktemp("sequence") / "store"
    return TokenStore(store_of_rows(folder, [5, 7], vocab_size=300, geometry=QUADRANTS))


def test_a_sequence_reads_as_it_is_written(store: TokenStore) -> None:
    options: dict[str, Any] = {"offset": 1000, "bos": 1, "eol": 2, "eos": 3, "label_offset": 10, "num_labels": 7}
    batch = store.read([0, 11])
    ids = batch.sequence(**options)
    assert ids.dtype == torch.int64
    for row, grid, label in zip(ids.tolist(), (batch.grid + 1000).tolist(), batch.label.tolist(), strict=True):
        assert row == [1, 10 + (label if label >= 0 else 7), *grid[0], 2, *grid[1], 2, 3]
    assert batch.label[0] == -1
    form = store.sequence_format(**options)
    assert (len(form), form.vocab_size) == (ids.shape[1], 1300)
    assert torch.equal(batch.sequence(), batch.grid.flatten(1))
    assert torch.equal(
        batch.sequence(order="blocks", eos=300), torch.nn.functional.pad(batch.tokens, (0, 1), value=300)
    )
    assert store.sequence_format().vocab_size == 300
    assert store.sequence_format(eos=999).vocab_size == 1000


specials = st.none() | st.integers(0, 40)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.sampled_from(
        [("raster", 2, 3), ("quadrants", 3, 4), ("quadrants", 1, 5), ("diagonal", 4, 4), ("multiscale", 2, 2)]
    ),
    st.integers(0, 60),
    specials,
    specials,
    specials,
    st.none() | st.integers(50, 90),
    st.sampled_from([None, "blocks"]),
    st.sampled_from([(), (3,)]),
)
def test_every_format_has_a_way_back(
    where: tuple[str, int, int],
    offset: int,
    bos: int | None,
    eol: int | None,
    eos: int | None,
    label_offset: int | None,
    order: Any,
    views: tuple[int, ...],
) -> None:
    layout, h, w = where
    lengths = (1, 4) if layout == "multiscale" else CUTS[layout].block_lengths((h, w))
    try:
        form = SequenceFormat(
            laid_out(layout, (h, w), lengths), 16, offset, bos, eol, eos, label_offset, num_labels=5, order=order
        )
    except ValueError:
        return  # two things with one id, or rows where there are none
    random = torch.Generator().manual_seed(h * offset)
    tokens = torch.randint(16, (4, *views, sum(lengths)), generator=random)
    label = torch.tensor([-1, 0, 4, 5])
    ids = form.ids(tokens, label)
    assert ids.shape == (4, *views, len(form))
    assert int(ids.max()) < form.vocab_size
    assert torch.equal(torch.cat(form.idx_Bl(ids), dim=-1), tokens)
    if label_offset is not None:
        expected = torch.tensor([-1, 0, 4, -1]).reshape(4, *[1] * len(views)).expand(4, *views)
        assert torch.equal(form.label(ids), expected)
    if order is None and layout in ("raster", "quadrants"):
        flat = [block.flatten(end_dim=-2) for block in form.idx_Bl(ids)]
        assert torch.equal(form.grid(ids).flatten(end_dim=-3), CUTS[layout].join(flat, (h, w)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eos": 299}, r"tokens \(offset=0\) have the ids 0 .. 299, which eos=299 \(299 .. 299\) must not meet"),
        ({"offset": 3, "bos": 2, "eol": 2}, r"bos=2 have the ids 2 .. 2, which eol=2"),
        ({"label_offset": 299, "num_labels": 5}, r"which labels \(label_offset=299\) \(299 .. 304\) must not meet"),
        ({"label_offset": 300}, "label_offset needs num_labels="),
        ({"offset": -1}, r"tokens \(offset=-1\): ids are not negative"),
        (
            {"order": "blocks", "eol": 300},
            "eol=300 stands behind every row of the grid, and order 'blocks' has no rows",
        ),
        ({"order": "spiral"}, "order must be 'raster' or 'blocks', not 'spiral'"),
    ],
)
def test_ids_that_contradict_each_other_are_refused(store: TokenStore, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store.read([0]).sequence(**options)


@pytest.mark.parametrize("name", ["offset", "bos", "eol", "eos", "label_offset", "num_labels"])
def test_ids_are_whole_numbers_of_any_kind(store: TokenStore, name: str) -> None:
    """1000.5 would make sequences of floats, and True one of the id 1."""
    batch, others = store.read([0, 1]), {"label_offset": 2000, "num_labels": 7} if "label" in name else {}
    wanted = batch.sequence(**{**others, name: 1000})
    for number in (np.int64(1000), np.uint16(1000), torch.tensor(1000)):
        assert torch.equal(batch.sequence(**{**others, name: number}), wanted)
    for other in (1000.0, 1000.5, "1000", True, np.array([1000])):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, not"):
            batch.sequence(**{**others, name: other})


def test_one_id_may_stand_at_both_ends(store: TokenStore) -> None:
    """As in GPT-2, and as `vqtok export` allows."""
    ids = store.read([0, 1]).sequence(bos=300, eos=300)
    form = store.sequence_format(bos=300, eos=300)
    assert (ids[:, 0].tolist(), ids[:, -1].tolist(), form.vocab_size) == ([300, 300], [300, 300], 301)
    assert torch.equal(form.grid(ids), store.read([0, 1]).grid)


def test_the_way_back_takes_integers_alone(store: TokenStore) -> None:
    form = store.sequence_format()
    ids = store.read([0, 1]).sequence()
    assert torch.equal(form.grid(ids.to(torch.uint16)), form.grid(ids.int()))
    for wrong, kind in ((ids.tolist(), "list"), (ids.numpy(), "ndarray"), (ids + 0.5, "torch.float32")):
        for back in (form.idx_Bl, form.grid):
            with pytest.raises(TypeError, match=f"a tensor of integers .* not {kind}"):
                back(wrong)


def test_a_layout_without_one_grid_has_its_blocks_in_order() -> None:
    form = SequenceFormat(SCALES, 16, bos=20)
    assert form.ids(torch.arange(5)[None]).tolist() == [[20, 0, 1, 2, 3, 4]]
    with pytest.raises(TokenizerError, match="layout 'multiscale' has a grid for each of its 2 scales"):
        SequenceFormat(SCALES, 16, order="raster")
    with pytest.raises(TokenizerError, match="order 'blocks' of layout 'multiscale' have no grid"):
        form.grid(form.ids(torch.arange(5)[None]))
    with pytest.raises(TokenizerError, match="without label_offset= have no label"):
        form.label(form.ids(torch.arange(5)[None]))


def test_a_sequence_that_a_model_drew_wrongly_is_told_where(store: TokenStore) -> None:
    form = store.sequence_format(offset=10, bos=1, eol=2)
    ids = store.read([0, 1]).sequence(offset=10, bos=1, eol=2)
    for place, value, wanted in ((0, 5, "1"), (2, 310, r"10 \.\. 309"), (4, 11, "2")):
        wrong = ids.clone()
        wrong[1, place] = value
        with pytest.raises(
            TokenizerError, match=rf"id {value} at place {place} of sequence 1, where this .* has {wanted}$"
        ):
            form.idx_Bl(wrong)
    with pytest.raises(TokenizerError, match="sequences of 8 ids, where this format has 9"):
        form.grid(ids[:, :-1])


def test_a_label_beyond_the_classes_is_refused(store: TokenStore) -> None:
    with pytest.raises(ValueError, match=r"label 5 is not in 0 \.\. num_labels = 3"):
        store.read([11]).sequence(label_offset=300, num_labels=3)


def test_classes_that_the_store_names_are_counted(tmp_path: Path) -> None:
    store = TokenStore(
        store_of_rows(tmp_path, [7], features=("classes",), classes=["a", "b", "c", "d", "e", "f"], geometry=QUADRANTS)
    )
    assert store.read([0]).sequence(label_offset=16)[0, 0] == 16 + 6
    assert store.sequence_format(label_offset=16).vocab_size == 16 + 7
