"""How tokens are read."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Section


class LoaderConfig(Section):
    """What `TokenLoader.from_config` takes from the file; the names are those of TokenLoader's arguments."""

    batch_size: Annotated[int, Field(ge=1)] = 256
    """Samples per batch and process."""
    shuffle: bool = True
    """Whether every epoch has an order of its own; else the order of the store."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the shuffled orders."""
    remainder: Literal["uneven", "drop", "pad"] | None = None
    """What becomes of samples that do not fill a batch in every process; null: `uneven` in one, `pad` in several."""
    parts_at_a_time: Annotated[int, Field(ge=0)] = 0
    """Shuffle only among so many parts at a time, where a local cache does not hold the whole store; 0: among all."""
    views: Annotated[int, Field(ge=0)] | Literal["random", "all"] = 0
    """Which view of each image, where a store has several: a number, `random` (another every epoch) or `all`."""
    label_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The probability with which a label is dropped, anew every epoch, for classifier-free guidance."""
    null_label: int = -1
    """What stands for a label that was dropped, or that a sample does not have."""
    text_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The probability with which a text, such as a caption, is dropped: likewise, and independently of the label."""
