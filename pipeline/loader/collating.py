"""What torch says when it is to make batches of what are batches already."""

from typing import Any, NoReturn

from torch.utils.data._utils.collate import default_collate_fn_map

from pipeline.store.batch import TokenBatch, TokenSample


def _refused(batch: Any, *, collate_fn_map: Any = None) -> NoReturn:
    raise TypeError(
        "default_collate: TokenLoader and MixtureLoader make the batches themselves: DataLoader(loader, "
        "batch_size=None). A TokenDataset needs DataLoader(dataset, collate_fn=TokenDataset.collate, ...)"
    )


def explain_collating() -> None:
    """Let `default_collate` of torch, which cannot put TokenBatches together, say what to do."""
    default_collate_fn_map.update({TokenBatch: _refused, TokenSample: _refused})
