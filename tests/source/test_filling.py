"""Where the rows of batches are decoded to, whichever samples are rejected and however many are in flight."""

from collections import deque
from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples
from torch import Tensor

from pipeline.source.filling import FillingInPlace, FillingOnDevice, Places
from pipeline.source.images.fitting import Shot
from pipeline.source.images.views import Box, View

SIZE, VIEW = (2, 3), View(Box(0, 0, 2, 3))

# Whether each sample becomes a row, and how many others are begun before it is done.
SAMPLES = st.lists(st.tuples(st.booleans() | st.just(True), st.integers(0, 9)), max_size=60)


def decoded(number: int, places: Places, views: int) -> list[Shot]:
    """Views in the shade of their sample, written as a thread of the decoder writes them: at any time in flight."""
    shots = []
    for view in range(views):
        img_3HW = places[view].img_3HW if places else torch.empty(3, *SIZE, dtype=torch.uint8)
        shots.append(Shot(img_3HW.fill_(4 * number + view + 1), VIEW))
    return shots


def shades(batches: Sequence[Tensor], images: int) -> list[list[int]]:
    for img_B3HW in batches:
        assert (img_B3HW.shape, img_B3HW.dtype) == ((images, 3, *SIZE), torch.uint8)
        assert img_B3HW.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(img_B3HW, img_B3HW[:, :1, :1, :1].expand(-1, 3, *SIZE))
    return [img_B3HW[:, 0, 0, 0].tolist() for img_B3HW in batches]


def run(filling: FillingInPlace | FillingOnDevice, samples: list[tuple[bool, int]], size: int, views: int) -> Places:
    """Batches of these samples are those of rows that are simply put one behind the other. Returns all places."""
    flight: deque[tuple[int, bool, list[Shot]]] = deque()
    batches: list[Tensor] = []
    rows: list[int] = []
    given: list[Places] = []

    def settle(at_most: int) -> None:
        while len(flight) > at_most:
            number, is_row, shots = flight.popleft()
            if not is_row:
                filling.reject()
                continue
            filling.add(shots)
            rows.append(number)
            if len(rows) % size == 0:
                batches.append(filling.take())

    for number, (is_row, ahead) in enumerate(samples):
        given.append(filling.expect())
        flight.append((number, is_row, decoded(number, given[-1], views)))
        settle(ahead)
    settle(0)
    if len(rows) % size:
        batches.append(filling.take())
    groups = [
        [4 * row + view + 1 for row in rows[at : at + size] for view in range(views)]
        for at in range(0, len(rows), size)
    ]
    assert shades(batches, size * views) == [[*group, *[0] * (size * views - len(group))] for group in groups]
    return [places for places in given if places]


@settings(max_examples=examples(200), deadline=None)
@given(samples=SAMPLES, size=st.integers(1, 7), views=st.integers(1, 3))
def test_batches_are_the_rows_in_their_order(samples: list[tuple[bool, int]], size: int, views: int) -> None:
    placed = run(FillingInPlace(size, views, SIZE, pinned=False), samples, size, views)
    rejected = sum(not is_row for is_row, _ in samples)
    assert len(samples) - len(placed) <= rejected  # after each reject one sample goes without
    assert not run(FillingOnDevice(size * views, SIZE, torch.device("cpu")), samples, size, views)
