"""Labels of a mixture, dropped at random in each store by itself."""

from collections.abc import Sequence

import numpy as np

from pipeline.loader.labels import LabelDropout
from pipeline.loader.mixtures.dealt import Dealt
from pipeline.loader.mixtures.stores import MixedStores
from pipeline.store.types import Array


def change_labels(dropouts: Sequence[LabelDropout]) -> bool:
    """Whether any label of some stores may be another than the store has."""
    return any(dropout.at(0) is not None for dropout in dropouts)


def labels_of(dealt: Dealt, stores: MixedStores, dropouts: Sequence[LabelDropout]) -> Array:
    """int64 [n]: as a loader of the store alone gives them in the epoch whose number is that of the row's pass.

    Args:
        dropouts: of each store.
    """
    labels = stores.labels_of(dealt.rows)
    sources = stores.source_of(dealt.rows)
    own_rows = dealt.rows - stores.starts[sources]
    for source, number in sorted(set(zip(sources.tolist(), dealt.passes.tolist(), strict=True))):
        relabel = dropouts[source].at(number)
        if relabel is not None:
            places = np.flatnonzero((sources == source) & (dealt.passes == number))
            labels[places] = relabel(own_rows[places], labels[places])
    return labels
