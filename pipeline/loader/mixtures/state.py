"""The place of a mixture as JSON, and what of another mixture's must be as here."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import StoreError
from pipeline.loader.loader import TokenLoader
from pipeline.loader.mixtures.passes import Progress, Stretch
from pipeline.loader.mixtures.position import Position
from pipeline.loader.states import check_names


def state_of(place: Position, loaders: Sequence[TokenLoader]) -> dict[str, Any]:
    """A place, with what tells the stores that it is a place in."""
    return {
        "epoch": place.epoch,
        "stores": [
            {
                **loader.ordered.identity,
                "pass": own.number,
                "stretches": [[stretch.world_size, stretch.delivered] for stretch in own.stretches],
            }
            for loader, own in zip(loaders, place.stores, strict=True)
        ],
        "position": place.position,
        "delivered": place.delivered,
    }


def place_in(state: Mapping[str, Any], world_size: int) -> Position:
    """The place that a checked state tells, for so many ranks."""
    progress = [
        Progress(int(own["pass"]), tuple(Stretch(int(size), int(delivered)) for size, delivered in own["stretches"]))
        for own in state["stores"]
    ]
    places = tuple(own.at(world_size) for own in progress)
    epoch = int(state.get("epoch", 0))  # which states did not always have
    return Position(epoch, int(state["position"]), int(state["delivered"]), places)


def check_state(
    state: Mapping[str, Any], present: Mapping[str, Any], loaders: Sequence[TokenLoader], new_weights: bool
) -> None:
    """Raise StoreError, naming what differs, for a state of other stores, another order or other weights.

    Args:
        present: the state of the mixture that is given this one.
        new_weights: whether the weights may be others.
    """
    check_names(state, present.keys() - {"epoch"}, "mixture", "MixtureLoader")
    if len(state["stores"]) != len(loaders):
        raise StoreError(f"the mixture's state is of {len(state['stores'])} stores, this is of {len(loaders)}")
    for name in ("seed", "offsets", *([] if new_weights else ["weights"])):
        if state[name] != present[name]:
            remedy = "; load_state_dict(state, new_weights=True) goes on with others" if name == "weights" else ""
            raise StoreError(f"the mixture's state has {name} {state[name]}, this mixture {present[name]}{remedy}")
    for loader, theirs in zip(loaders, state["stores"], strict=True):
        loader.ordered.check(theirs, "mixture")
