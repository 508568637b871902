"""The vector quantizer of VQ-VAE, with the codebook upkeep that later work added as options.

Shape letters: B images, C embedding_dim, h and w grid sides, N = B*h*w vectors, K codes, D dead codes.
"""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import TokenizerError
from pipeline.models.networks.float64 import in_float64
from pipeline.models.networks.kmeans import draw_vectors, kmeans
from pipeline.models.networks.ranks import first_rank_where, from_rank, sum_over_ranks
from pipeline.models.networks.search import Search, check_same_device, nearest_codes
from pipeline.models.rules.lookup import lookup

_LAPLACE = 1e-5  # keeps the mean finite of a code that no vector chose for long


class VectorQuantizer(nn.Module):
    """Replaces each vector by its nearest code (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

    With the first three arguments it is the quantizer of that paper, trained by gradient. The options:

    ema_decay      the codebook follows the vectors as an exponential moving average (appendix A.1) and takes
                   no gradient; of the loss only the commitment term remains
    kmeans_init    the first training batch places the codes (https://arxiv.org/abs/2107.03312)
    revive_after   a code that no vector chose for so many training steps moves to a random vector of the
                   batch (https://arxiv.org/abs/2107.03312); deciding it waits for the device once a step
    cosine         vectors and codes are l2-normalised (https://arxiv.org/abs/2110.04627)

    The options keep what they count in buffers, so that a checkpoint resumes exactly; a buffer exists only
    while its option is on. A training step is a forward pass in training mode with gradients enabled; no other
    pass changes anything. With gradient accumulation it is several of them: see `accumulates`. In a process group
    the ranks add up what they count and share the random choices of one, so that they keep equal codebooks.

    Vectors that are not finite, or too long for a finite distance in float32, get some code, but are not counted, and
    no code follows them or moves to one: the codebook stays finite. A step without any other vector changes nothing.
    """

    ema_count: Tensor
    """float32 [K], moving average of the number of vectors per step that chose each code."""
    ema_sum: Tensor
    """float32 [K, C], moving average of the sum of those vectors."""
    steps_unused: Tensor
    """int64 [K], training steps since each code was last chosen."""
    kmeans_done: Tensor
    """bool scalar, whether the codes have been placed."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        beta: float = 0.25,
        *,
        ema_decay: float | None = None,
        kmeans_init: bool = False,
        revive_after: int | None = None,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.beta = beta
        self.ema_decay = ema_decay
        self.kmeans_init = kmeans_init
        self.revive_after = revive_after
        self.cosine = cosine
        self.nearest: Search = nearest_codes
        """How codes are found. Training leaves it as it is."""
        self.accumulates = False
        """Set it before each forward pass that is not the last of its training step. Such passes only gather what the
        last one counts. With `place_codes` at its start, a step is the same in one batch or in several."""
        # No buffers: DistributedDataParallel would overwrite each rank's own with those of rank 0.
        self._gathered_K: Tensor | None = None
        self._gathered_KC: Tensor | None = None
        self.embedding = nn.Embedding(num_embeddings, embedding_dim)
        nn.init.uniform_(self.embedding.weight, -1 / num_embeddings, 1 / num_embeddings)
        if ema_decay is not None:
            self.embedding.weight.requires_grad_(False)
            self.register_buffer("ema_count", torch.ones(num_embeddings))
            self.register_buffer("ema_sum", self.embedding.weight.detach().clone())
        if kmeans_init:
            self.register_buffer("kmeans_done", torch.tensor(False))
        if revive_after is not None:
            self.register_buffer("steps_unused", torch.zeros(num_embeddings, dtype=torch.int64))

    def forward(self, z_BChw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize z [B, C, h, w] of any floating dtype.

        Returns the codes in z's place and dtype [B, C, h, w], with the gradient of z passed straight through
        (https://arxiv.org/abs/1308.3432); the loss mean((q − sg[z])²) + beta mean((sg[q] − z)²), a float32
        scalar, 0 for no vectors; and the indices, int64 [B*h*w].

        Raises TokenizerError for a z of another shape, of integers, or on another device.
        """
        self._check(z_BChw)
        B, _, h, w = z_BChw.shape
        with torch.autocast(z_BChw.device.type, enabled=False):
            z_NC = self._vectors(z_BChw)
            learns = self.training and torch.is_grad_enabled() and self._keeps_up
            if learns:
                self._place_codes(z_NC.detach())
            codebook_KC = self.get_codebook().to(z_NC.dtype)
            indices_N = self.nearest(z_NC.detach(), codebook_KC.detach())
            q_NC = F.embedding(indices_N, codebook_KC)
            loss = self._loss(z_NC, q_NC)
            if learns:
                self._count_use(z_NC.detach(), indices_N)
            # z − sg[z] is exactly 0, so the values are those of the codebook to the last bit.
            straight_NC = q_NC.detach() + (z_NC - z_NC.detach())
            straight_BChw = straight_NC.reshape(B, h, w, self.embedding_dim).permute(0, 3, 1, 2).contiguous()
        return straight_BChw.to(z_BChw.dtype), loss, indices_N

    def get_codebook(self) -> Tensor:
        """The table [num_embeddings, embedding_dim] that search and lookup use, normalised with `cosine`."""
        if not self.cosine:
            return self.embedding.weight
        # Normalised in float64, the float32 table is the same on CPUs and GPUs and can be stored and compared.
        weight_KC = self.embedding.weight
        return F.normalize(in_float64(weight_KC), dim=1).to(weight_KC)

    def search(self, z_BChw: Tensor) -> Tensor:
        """Index of the code of each vector of z [B, C, h, w], int64 [B, h, w]. No gradient, no counting.

        Raises TokenizerError as `forward` does.
        """
        self._check(z_BChw)
        B, _, h, w = z_BChw.shape
        with torch.no_grad(), torch.autocast(z_BChw.device.type, enabled=False):
            return self.nearest(self._vectors(z_BChw), self.get_codebook()).reshape(B, h, w)

    @property
    def codes_wait(self) -> bool:
        """Whether the next training step begins with moving codes. Waits for the device."""
        if self.kmeans_init and not self.kmeans_done:
            return True
        return self.revive_after is not None and bool((self.steps_unused >= self.revive_after).any())

    @torch.no_grad()
    def place_codes(self, z_BChw: Tensor) -> None:
        """Move the codes that wait for a place to vectors of z [B, C, h, w], as the first pass of a step else does.

        For a step in several batches: the pass would know the vectors of the first batch only. All ranks call it.
        Raises TokenizerError as `forward` does.
        """
        self._check(z_BChw)
        with torch.autocast(z_BChw.device.type, enabled=False):
            self._place_codes(self._vectors(z_BChw))

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes [..., C] of indices [...] of any integer dtype; see `pipeline.models.rules.lookup.lookup`."""
        return lookup(indices, self.get_codebook())

    def features(self, idx_Bhw: Tensor) -> Tensor:
        """The codes of what `search` finds as a feature map [B, C, h, w]. Raises TokenizerError as `lookup` does."""
        return self.lookup(idx_Bhw).permute(0, 3, 1, 2)

    def rule_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What the rule for embeddings needs beside the codebook: nothing, as it is `lookup`."""
        return {}

    def _check(self, z_BChw: Tensor) -> None:
        if z_BChw.dim() != 4 or z_BChw.shape[1] != self.embedding_dim:
            raise TokenizerError(
                f"the quantizer takes vectors [B, {self.embedding_dim}, h, w], not {list(z_BChw.shape)}"
            )
        if not z_BChw.is_floating_point():
            raise TokenizerError(f"the quantizer takes floating-point vectors, not {z_BChw.dtype}")
        check_same_device(z_BChw, self.embedding.weight)

    def _vectors(self, z_BChw: Tensor) -> Tensor:
        """z as the rows that are compared, [N, C], in float32 or better, normalised with `cosine`."""
        z_NC = z_BChw.permute(0, 2, 3, 1).reshape(-1, self.embedding_dim)
        z_NC = z_NC.to(torch.promote_types(z_NC.dtype, torch.float32))
        return F.normalize(z_NC, dim=1) if self.cosine else z_NC

    def _loss(self, z_NC: Tensor, q_NC: Tensor) -> Tensor:
        commitment = self.beta * _mean_squared(z_NC, q_NC.detach())
        if self.ema_decay is not None:
            return commitment
        return _mean_squared(q_NC, z_NC.detach()) + commitment

    @property
    def _keeps_up(self) -> bool:
        """Whether an option is on that places or counts."""
        return self.ema_decay is not None or self.kmeans_init or self.revive_after is not None

    @torch.no_grad()
    def _place_codes(self, z_NC: Tensor) -> None:
        """Move codes that wait for a place. Runs before the codebook takes part in this step's graph."""
        if self.kmeans_init and not self.kmeans_done:
            everything_K = torch.arange(self.num_embeddings, device=z_NC.device)
            if self._move(everything_K, z_NC[_countable(z_NC)], kmeans):
                self.kmeans_done.fill_(True)
        if self.revive_after is not None:
            dead_D = torch.nonzero(self.steps_unused >= self.revive_after).squeeze(1)
            if len(dead_D) > 0:
                self._move(dead_D, z_NC[_countable(z_NC)], draw_vectors)

    def _move(self, codes_D: Tensor, vectors_NC: Tensor, choose: Callable[[Tensor, int], Tensor]) -> bool:
        """Put the codes where the first rank that has vectors chooses, with the statistics of a new code.

        False when no rank has any: the codes wait on.
        """
        rank = first_rank_where(len(vectors_NC) > 0, vectors_NC.device)
        if rank is None:
            return False
        D = len(codes_D)
        places_DC = choose(vectors_NC, D) if len(vectors_NC) > 0 else vectors_NC.new_empty(D, self.embedding_dim)
        places_DC = from_rank(rank, places_DC.to(self.embedding.weight.dtype))
        self.embedding.weight[codes_D] = places_DC
        if self.ema_decay is not None:
            self.ema_count[codes_D] = 1
            self.ema_sum[codes_D] = places_DC
        if self.revive_after is not None:
            self.steps_unused[codes_D] = 0
        return True

    @torch.no_grad()
    def _count_use(self, z_NC: Tensor, indices_N: Tensor) -> None:
        """Gather the use of this pass; the last pass of a step brings statistics and codebook up to date."""
        if self.ema_decay is None and self.revive_after is None:
            return
        K = self.num_embeddings
        # Row K takes what does not count: no copy of the vectors, and no wait for the device.
        codes_N = indices_N.masked_fill(~_countable(z_NC), K)
        self._gathered_K = _added(self._gathered_K, torch.bincount(codes_N, minlength=K + 1)[:K])
        if self.ema_decay is not None:
            sum_KC = z_NC.new_zeros(K + 1, self.embedding_dim).index_add_(0, codes_N, z_NC)[:K]
            self._gathered_KC = _added(self._gathered_KC, sum_KC)
        if not self.accumulates:
            self._end_step()

    def _end_step(self) -> None:
        """Count one training step, with all that was gathered in it on all ranks."""
        assert self._gathered_K is not None
        count_K = sum_over_ranks(self._gathered_K)
        seen = count_K.sum() > 0
        if self.revive_after is not None:
            self.steps_unused.add_(seen.long()).masked_fill_(count_K > 0, 0)
        if self.ema_decay is not None:
            assert self._gathered_KC is not None
            self._follow(count_K, sum_over_ranks(self._gathered_KC), (1 - self.ema_decay) * seen)
        self._gathered_K = self._gathered_KC = None

    def _follow(self, count_K: Tensor, sum_KC: Tensor, share: Tensor) -> None:
        """The codebook update of appendix A.1, `share` being 1 − γ.

        N_i ← γ N_i + (1 − γ) n_i,  m_i ← γ m_i + (1 − γ) Σ z,  e_i ← m_i / N_i, with Laplace smoothing of
        N_i as in the authors' implementation (https://github.com/google-deepmind/sonnet, nets/vqvae.py).
        """
        share = share.to(self.ema_count.dtype)
        self.ema_count.lerp_(count_K.to(self.ema_count.dtype), share)
        self.ema_sum.lerp_(sum_KC.to(self.ema_sum.dtype), share)
        total = self.ema_count.sum()
        smoothed_K = (self.ema_count + _LAPLACE) / (total + self.num_embeddings * _LAPLACE) * total
        self.embedding.weight.copy_(self.ema_sum / smoothed_K[:, None])


def _countable(z_NC: Tensor) -> Tensor:
    """Which vectors have a finite distance to anything near them, bool [N]; sums over them are finite, too."""
    return z_NC.float().square().sum(dim=1).isfinite()


def _added(gathered: Tensor | None, values: Tensor) -> Tensor:
    return values if gathered is None else gathered + values


def _mean_squared(a_NC: Tensor, b_NC: Tensor) -> Tensor:
    """The mean squared difference: 0, with a gradient of nothing, where the mean over no vectors would be NaN."""
    return F.mse_loss(a_NC, b_NC) if a_NC.numel() > 0 else (a_NC - b_NC).square().sum()
