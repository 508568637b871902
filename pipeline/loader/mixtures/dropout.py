"""Labels and texts of a mixture, dropped at random in each store by itself.

They are those that a loader of the store alone drops in the epoch whose number is that of the row's pass.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.loader.dropout import LabelDropout, TextDropout
from pipeline.loader.mixtures.dealt import Dealt
from pipeline.loader.mixtures.stores import MixedStores
from pipeline.store.types import Array


def change_labels(dropouts: Sequence[LabelDropout]) -> bool:
    """Whether any label of some stores may be another than the store has."""
    return any(dropout.at(0) is not None for dropout in dropouts)


def labels_of(dealt: Dealt, stores: MixedStores, dropouts: Sequence[LabelDropout]) -> Array:
    """int64 [n], with those that are dropped.

    Args:
        dropouts: of each store.
    """
    labels = stores.labels_of(dealt.rows)
    for source, number, places, own_rows in _by_pass(dealt, stores):
        relabel = dropouts[source].at(number)
        if relabel is not None:
            labels[places] = relabel(own_rows, labels[places])
    return labels


def dropped_texts(dealt: Dealt, stores: MixedStores, dropouts: Sequence[TextDropout]) -> Array | None:
    """bool [n], True where the text is dropped; None where none ever is.

    Args:
        dropouts: of each store.
    """
    if not any(dropout.probability for dropout in dropouts):
        return None
    dropped = np.zeros(len(dealt), bool)
    for source, number, places, own_rows in _by_pass(dealt, stores):
        of_store = dropouts[source].at(number, own_rows)
        if of_store is not None:
            dropped[places] = of_store
    return dropped


def _by_pass(dealt: Dealt, stores: MixedStores) -> Iterator[tuple[int, int, Array, Array]]:
    """The rows of each store and pass: the numbers of both, int64 [m] which rows they are, and their numbers in the
    store."""
    sources = stores.source_of(dealt.rows)
    own_rows = dealt.rows - stores.starts[sources]
    for source, number in sorted(set(zip(sources.tolist(), dealt.passes.tolist(), strict=True))):
        places = np.flatnonzero((sources == source) & (dealt.passes == number))
        yield source, number, places, own_rows[places]
