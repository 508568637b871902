"""What torch says when it is to make batches of what are batches already."""

import sys
from typing import Any, NoReturn

from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from pipeline.store.batch import TokenBatch, TokenSample

_REMEDY = (
    "default_collate: TokenLoader and MixtureLoader make the batches themselves: DataLoader(loader, batch_size=None). "
    "A TokenDataset needs DataLoader(dataset, collate_fn=TokenDataset.collate, ...)"
)


def _refused(batch: Any, *, collate_fn_map: Any = None) -> NoReturn:
    raise TypeError(_REMEDY)


def refuse_collating() -> None:
    """Raise TypeError where whoever calls the caller is a DataLoader that would put its batches together.

    Of what a transform makes of them, such as dicts of tensors, it would make tensors of one dimension more.
    """
    fetcher = sys._getframe(2).f_locals.get("self")
    if not getattr(fetcher, "auto_collation", False):
        return
    collate = getattr(fetcher, "collate_fn", None)
    if collate is default_collate:
        raise TypeError(_REMEDY)
    if str(getattr(collate, "__module__", "")).partition(".")[0] == "transformers":
        raise TypeError(
            "Trainer would put together what are batches already: in its place take TokenTrainer, from "
            "pipeline.loader.trainers.huggingface"
        )


def explain_collating() -> None:
    """Let `default_collate` of torch, which cannot put TokenBatches together, say what to do."""
    default_collate_fn_map.update({TokenBatch: _refused, TokenSample: _refused})
