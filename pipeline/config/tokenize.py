"""How tokens are made and kept."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.before import Before
from pipeline.config.section import PathText, Reached, Section
from pipeline.storage import Storage


class TokenizeConfig(Section):
    """The tokenization job."""

    store: PathText
    """Folder or URL of the token store; by default `runs/<name of the configuration file>/store`."""
    layout: str | None = None
    """Block layout, one that the tokenizer can give, such as raster, quadrants or diagonal; null for its own."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images encoded at once. Batches never cross source shards; the last one is padded."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Precision of the encoder; the code search is always float32. `tf32` is for CUDA."""
    compile: bool = False
    """Whether torch compiles the encoder: a minute or more at the start of each process; tokens may change."""
    decode_workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Decoding threads per process; `auto` shares the CPU cores among the processes of this host."""
    codec: Literal["lz4", "raw"] = "lz4"
    """How token and label chunks are compressed; `raw` reads fastest."""
    max_reject_rate: Annotated[float, Field(ge=0, le=1), Before(1.0)] = 0.5
    """A source shard of ten samples or more that rejects a larger share of them fails instead of being committed."""
    claim_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a heartbeat after which another process takes a source shard over."""
    stall_timeout: Annotated[float, Field(gt=0)] | None = 600.0
    """Seconds after which a single step (a read, an image, a batch, a part) counts as hung; null for never."""
    storage: Reached = Storage()
    """How the store's URL is reached: endpoint, profile, region, anonymous, patience_s."""
