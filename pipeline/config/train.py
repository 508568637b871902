"""How a tokenizer is trained."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.before import Before
from pipeline.config.section import Patterns, Section


class ModelConfig(Section):
    """The network and its quantizer; the defaults are the plain published VQ-VAE."""

    network: Annotated[Literal["simple", "vqgan"], Before("simple")] = "simple"
    """`simple` is `SimpleVQVAE`; `vqgan` has residual blocks at every resolution, and attention at the lowest."""
    downsampling: Annotated[Literal[4, 8, 16], Before(4)] = 4
    """Pixels per token along each side; `simple` has 4."""
    quantizer: Annotated[Literal["plain", "multiscale"], Before("plain")] = "plain"
    """`multiscale` codes an image at several scales that add up, as VAR wants it; for `vqgan`."""
    patch_nums: Annotated[tuple[Annotated[int, Field(ge=1)], ...] | None, Before(None)] = None
    """Tokens along the side of each scale of `multiscale`; the last one is that of the token grid."""
    vocab_size: Annotated[int, Field(ge=2)] = 16
    """K, the number of codes."""
    embedding_dim: Annotated[int, Field(ge=1)] = 64
    """C, the length of a code."""
    hidden_dim: Annotated[int, Field(ge=1)] = 128
    """Channels inside encoder and decoder; of `vqgan` at the finest resolution, a multiple of 32."""
    beta: Annotated[float, Field(ge=0)] = 0.25
    """Weight of the commitment loss."""
    residual_blocks: Annotated[int, Field(ge=0)] = 0
    """Residual blocks at the lowest resolution of encoder and decoder; of `vqgan` at each, 0 meaning 2."""
    final_relu: bool = True
    """Whether the encoder ends in a ReLU, which leaves codes only the positive orthant."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Learn the codebook as an exponential moving average of what falls to each code."""
    kmeans_init: bool = False
    """Start the codebook from k-means over the images of the first optimizer step."""
    revive_after: Annotated[int, Field(ge=1)] | None = None
    """Replace a code that no vector fell to for this many optimizer steps."""
    cosine: bool = False
    """Compare by cosine similarity: vectors and codes are l2-normalised."""


class TrainConfig(Section):
    """Training of the tokenizer."""

    model: ModelConfig = ModelConfig()
    holdout: Patterns = ()
    """Source shards that training never sees, for PSNR and pictures."""
    steps: Annotated[int, Field(ge=1)] = 1000
    """Optimizer steps in all."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images per step and process, before gradient accumulation."""
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    """Batches per optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak of the schedule, reached after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up, fewer than `steps`; a cosine to zero follows."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Mixed precision of encoder and decoder, `fp16` on GPUs only; the code search is always float32."""
    shuffle_buffer: Annotated[int, Field(ge=1)] = 1000
    """Samples shuffled among each other, from many places of the collection. Twice as many are held, encoded."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Worker processes that decode, per process."""
    log_every: Annotated[int, Field(ge=1)] = 20
    """Steps between lines of metrics.jsonl."""
    evaluate_every: Annotated[int, Field(ge=1)] = 200
    """Steps between evaluations on the held-out images, each with a picture."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 200
    """Steps between full-state checkpoints; training resumes from the newest."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of weights, shuffling and whatever else is random."""
