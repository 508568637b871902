"""The vector quantizer of VQ-VAE, with the codebook upkeep that later work added as options.

Shape letters: B images, C embedding_dim, h and w grid sides, N = B*h*w vectors, K codes, D dead codes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import TokenizerError
from pipeline.models.kmeans import draw_vectors, kmeans
from pipeline.models.lookup import lookup
from pipeline.models.ranks import from_first_rank, sum_over_ranks
from pipeline.models.search import check_same_device, nearest_codes

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
    pass changes anything. In a process group the ranks add up what they count and take the random choices of
    rank 0, so that they keep equal codebooks.
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
        scalar; and the indices, int64 [B*h*w].

        Raises TokenizerError for a z of another shape, of integers, or on another device.
        """
        self._check(z_BChw)
        B, _, h, w = z_BChw.shape
        with torch.autocast(z_BChw.device.type, enabled=False):
            z_NC = self._vectors(z_BChw)
            learns = self.training and torch.is_grad_enabled()
            if learns:
                self._place_codes(z_NC.detach())
            codebook_KC = self.get_codebook().to(z_NC.dtype)
            indices_N = nearest_codes(z_NC.detach(), codebook_KC.detach())
            q_NC = F.embedding(indices_N, codebook_KC)
            loss = self._loss(z_NC, q_NC)
            if learns:
                self._count_use(z_NC.detach(), indices_N)
            # z − sg[z] is exactly 0, so the values are those of the codebook to the last bit.
            straight_NC = q_NC.detach() + (z_NC - z_NC.detach())
            straight_BChw = straight_NC.reshape(B, h, w, -1).permute(0, 3, 1, 2).contiguous()
        return straight_BChw.to(z_BChw.dtype), loss, indices_N

    def get_codebook(self) -> Tensor:
        """The table [num_embeddings, embedding_dim] that search and lookup use, normalised with `cosine`."""
        if not self.cosine:
            return self.embedding.weight
        # Normalised in float64, the float32 table is the same on CPUs and GPUs and can be stored and compared.
        weight_KC = self.embedding.weight
        return F.normalize(weight_KC.double(), dim=1).to(weight_KC.dtype)

    def search(self, z_BChw: Tensor) -> Tensor:
        """Index of the code of each vector of z [B, C, h, w], int64 [B, h, w]. No gradient, no counting.

        Raises TokenizerError as `forward` does.
        """
        self._check(z_BChw)
        B, _, h, w = z_BChw.shape
        with torch.no_grad(), torch.autocast(z_BChw.device.type, enabled=False):
            return nearest_codes(self._vectors(z_BChw), self.get_codebook()).reshape(B, h, w)

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes [..., C] of indices [...] of any integer dtype; see `pipeline.models.lookup.lookup`."""
        return lookup(indices, self.get_codebook())

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
        commitment = self.beta * F.mse_loss(z_NC, q_NC.detach())
        if self.ema_decay is not None:
            return commitment
        return F.mse_loss(q_NC, z_NC.detach()) + commitment

    @torch.no_grad()
    def _place_codes(self, z_NC: Tensor) -> None:
        """Move codes that wait for a place. Runs before the codebook takes part in this step's graph."""
        if self.kmeans_init and not self.kmeans_done:
            self._move(torch.arange(self.num_embeddings, device=z_NC.device), kmeans(z_NC, self.num_embeddings))
            self.kmeans_done.fill_(True)
        if self.revive_after is not None:
            dead_D = torch.nonzero(self.steps_unused >= self.revive_after).squeeze(1)
            if len(dead_D) > 0:
                self._move(dead_D, draw_vectors(z_NC, len(dead_D)))

    def _move(self, codes_D: Tensor, vectors_DC: Tensor) -> None:
        """Put the codes where rank 0 says, with the statistics of a new code."""
        vectors_DC = from_first_rank(vectors_DC.to(self.embedding.weight.dtype))
        self.embedding.weight[codes_D] = vectors_DC
        if self.ema_decay is not None:
            self.ema_count[codes_D] = 1
            self.ema_sum[codes_D] = vectors_DC
        if self.revive_after is not None:
            self.steps_unused[codes_D] = 0

    @torch.no_grad()
    def _count_use(self, z_NC: Tensor, indices_N: Tensor) -> None:
        """Bring the statistics, and with `ema_decay` the codebook, up to date with this step."""
        if self.ema_decay is None and self.revive_after is None:
            return
        count_K = sum_over_ranks(torch.bincount(indices_N, minlength=self.num_embeddings))
        if self.revive_after is not None:
            self.steps_unused.add_(1).masked_fill_(count_K > 0, 0)
        if self.ema_decay is not None:
            self._follow(z_NC, indices_N, count_K, 1 - self.ema_decay)

    def _follow(self, z_NC: Tensor, indices_N: Tensor, count_K: Tensor, share: float) -> None:
        """The codebook update of appendix A.1, `share` being 1 − γ.

        N_i ← γ N_i + (1 − γ) n_i,  m_i ← γ m_i + (1 − γ) Σ z,  e_i ← m_i / N_i, with Laplace smoothing of
        N_i as in the authors' implementation (https://github.com/google-deepmind/sonnet, nets/vqvae.py).
        """
        sum_KC = sum_over_ranks(z_NC.new_zeros(self.ema_sum.shape).index_add_(0, indices_N, z_NC))
        self.ema_count.lerp_(count_K.to(self.ema_count.dtype), share)
        self.ema_sum.lerp_(sum_KC.to(self.ema_sum.dtype), share)
        total = self.ema_count.sum()
        smoothed_K = (self.ema_count + _LAPLACE) / (total + self.num_embeddings * _LAPLACE) * total
        self.embedding.weight.copy_(self.ema_sum / smoothed_K[:, None])
