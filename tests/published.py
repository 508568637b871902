"""Checkpoints of the VQ-GAN family as they are published, and what they compute.

Written from the papers and the published names, and sharing nothing with the package.

A `Family` knows the names; `tensors` makes random ones; `encode`, `decode` and the functions of scales are literal
references that go from name to name.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """One family of checkpoints, small: 32 channels are what 32 groups allow."""

    fused: bool = False
    """Attention is one `qkv`, as in VAR; else `q`, `k` and `v`."""
    llamagen: bool = False
    """LlamaGen's names of levels and of the middle."""
    kernel: int = 1
    """Side of quant_conv."""
    multipliers: tuple[int, ...] = (1, 1, 1, 1, 2)
    attention: tuple[int, ...] = (4,)
    """Levels with attention."""
    channels: int = 32
    latent: int = 16
    K: int = 64
    C: int = 8
    depth: int = 1

    def level(self, side: str, level: int) -> str:
        if self.llamagen:
            return f"{side}.conv_blocks.{level if side == 'encoder' else len(self.multipliers) - 1 - level}"
        return f"{side}.{'down' if side == 'encoder' else 'up'}.{level}"

    def block(self, side: str, level: int, number: int) -> str:
        return f"{self.level(side, level)}.{'res' if self.llamagen else 'block'}.{number}"

    def middle(self, side: str) -> tuple[str, str, str]:
        names = ("0", "1", "2") if self.llamagen else ("block_1", "attn_1", "block_2")
        return tuple(f"{side}.mid.{name}" for name in names)  # type: ignore[return-value]

    # --- shapes ---------------------------------------------------------------------------------------------

    def shapes(self) -> dict[str, tuple[int, ...]]:
        layers = {**dict(self._encoder()), **dict(self._decoder())}
        return {**layers, "quantize.embedding.weight": (self.K, self.C)}

    def _encoder(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        inner = self.channels
        yield from _conv("encoder.conv_in", 3, inner, 3)
        for level, multiplier in enumerate(self.multipliers):
            for number in range(self.depth):
                yield from _residual(self.block("encoder", level, number), inner, multiplier * self.channels)
                inner = multiplier * self.channels
                if level in self.attention:
                    yield from self._attention(f"{self.level('encoder', level)}.attn.{number}", inner)
            if level < len(self.multipliers) - 1:
                yield from _conv(f"{self.level('encoder', level)}.downsample.conv", inner, inner, 3)
        yield from self._ends("encoder", inner)
        yield from _conv("encoder.conv_out", inner, self.latent, 3)
        yield from _conv("quant_conv", self.latent, self.C, self.kernel)

    def _decoder(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from _conv("post_quant_conv", self.C, self.latent, self.kernel)
        inner = self.multipliers[-1] * self.channels
        yield from _conv("decoder.conv_in", self.latent, inner, 3)
        middle = dict(self._ends("decoder", inner))
        for level in reversed(range(len(self.multipliers))):
            for number in range(self.depth + 1):
                yield from _residual(
                    self.block("decoder", level, number), inner, self.multipliers[level] * self.channels
                )
                inner = self.multipliers[level] * self.channels
                if level in self.attention:
                    yield from self._attention(f"{self.level('decoder', level)}.attn.{number}", inner)
            if level:
                yield from _conv(f"{self.level('decoder', level)}.upsample.conv", inner, inner, 3)
        yield from (middle | dict(_norm("decoder.norm_out", inner))).items()
        yield from _conv("decoder.conv_out", inner, 3, 3)

    def _ends(self, side: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        before, attention, after = self.middle(side)
        yield from _residual(before, channels, channels)
        yield from self._attention(attention, channels)
        yield from _residual(after, channels, channels)
        yield from _norm(f"{side}.norm_out", channels)

    def _attention(self, name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from _norm(f"{name}.norm", channels)
        for part in ("qkv",) if self.fused else ("q", "k", "v"):
            yield from _conv(f"{name}.{part}", channels, channels * (3 if self.fused else 1), 1)
        yield from _conv(f"{name}.proj_out", channels, channels, 1)

    def tensors(self, seed: int = 0) -> State:
        """Random tensors, of a size that keeps signals alive; codes are spread as far as vectors are."""
        draw = torch.Generator().manual_seed(seed)
        state = {}
        for name, shape in self.shapes().items():
            values = torch.randn(shape, generator=draw)
            if len(shape) == 4:
                values /= math.prod(shape[1:]) ** 0.5
            elif "norm" in name and name.endswith("weight"):
                values = 1 + 0.1 * values
            elif len(shape) == 1:
                values *= 0.1
            state[name] = values
        return state

    # --- what it computes -----------------------------------------------------------------------------------

    def encode(self, state: State, img: Tensor) -> Tensor:
        """Images to vectors [B, C, h, w]."""
        x = conv(state, "encoder.conv_in", img)
        for level in range(len(self.multipliers)):
            for number in range(self.depth):
                x = residual(state, self.block("encoder", level, number), x)
                if level in self.attention:
                    x = self.attend(state, f"{self.level('encoder', level)}.attn.{number}", x)
            if level < len(self.multipliers) - 1:
                name = f"{self.level('encoder', level)}.downsample.conv"
                x = F.conv2d(F.pad(x, (0, 1, 0, 1)), state[f"{name}.weight"], state[f"{name}.bias"], stride=2)
        x = norm(state, "encoder.norm_out", self.mid(state, "encoder", x))
        return conv(state, "quant_conv", conv(state, "encoder.conv_out", x * x.sigmoid()))

    def decode(self, state: State, q: Tensor) -> Tensor:
        """Codes [B, C, h, w] to images."""
        x = self.mid(state, "decoder", conv(state, "decoder.conv_in", conv(state, "post_quant_conv", q)))
        for level in reversed(range(len(self.multipliers))):
            for number in range(self.depth + 1):
                x = residual(state, self.block("decoder", level, number), x)
                if level in self.attention:
                    x = self.attend(state, f"{self.level('decoder', level)}.attn.{number}", x)
            if level:
                x = conv(
                    state,
                    f"{self.level('decoder', level)}.upsample.conv",
                    x.repeat_interleave(2, 2).repeat_interleave(2, 3),
                )
        x = norm(state, "decoder.norm_out", x)
        return conv(state, "decoder.conv_out", x * x.sigmoid())

    def mid(self, state: State, side: str, x: Tensor) -> Tensor:
        before, attention, after = self.middle(side)
        return residual(state, after, self.attend(state, attention, residual(state, before, x)))

    def attend(self, state: State, name: str, x: Tensor) -> Tensor:
        B, D, h, w = x.shape
        normed = norm(state, f"{name}.norm", x)
        if self.fused:
            q, k, v = conv(state, f"{name}.qkv", normed).reshape(B, 3, D, h * w).unbind(1)
        else:
            q, k, v = (conv(state, f"{name}.{part}", normed).reshape(B, D, h * w) for part in "qkv")
        weights = torch.softmax(torch.einsum("bdi,bdj->bij", q, k) / D**0.5, dim=2)
        mixed = torch.einsum("bij,bdj->bdi", weights, v).reshape(B, D, h, w)
        return x + conv(state, f"{name}.proj_out", mixed)


TAMING = Family(K=128, C=16)
LLAMAGEN = Family(llamagen=True)
VAR = Family(fused=True, kernel=3)


def as_deep(family: Family) -> Family:
    """With levels and blocks as they are published."""
    return replace(family, multipliers=(1, 1, 2, 2, 4), depth=2)


def _conv(name: str, inner: int, outer: int, kernel: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outer, inner, kernel, kernel)
    yield f"{name}.bias", (outer,)


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _residual(name: str, inner: int, outer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm(f"{name}.norm1", inner)
    yield from _conv(f"{name}.conv1", inner, outer, 3)
    yield from _norm(f"{name}.norm2", outer)
    yield from _conv(f"{name}.conv2", outer, outer, 3)
    if inner != outer:
        yield from _conv(f"{name}.nin_shortcut", inner, outer, 1)


def conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    B, D = x.shape[:2]
    groups = x.reshape(B, 32, -1)
    centred = groups - groups.mean(2, keepdim=True)
    scaled = (centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()).reshape(x.shape)
    return scaled * state[f"{name}.weight"].reshape(1, D, 1, 1) + state[f"{name}.bias"].reshape(1, D, 1, 1)


def residual(state: State, name: str, x: Tensor) -> Tensor:
    h = norm(state, f"{name}.norm1", x)
    h = conv(state, f"{name}.conv1", h * h.sigmoid())
    h = norm(state, f"{name}.norm2", h)
    h = conv(state, f"{name}.conv2", h * h.sigmoid())
    return h + (conv(state, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in state else x)


# --- scales -----------------------------------------------------------------------------------------------------


def phi_tensors(C: int, names: list[str], seed: int = 1) -> State:
    """The convolutions of the scales."""
    draw = torch.Generator().manual_seed(seed)
    made = {}
    for name in names:
        made[f"quantize.quant_resi.{name}.weight"] = torch.randn(C, C, 3, 3, generator=draw) / (3 * C**0.5)
        made[f"quantize.quant_resi.{name}.bias"] = 0.05 * torch.randn(C, generator=draw)
    return made


def nearest(z_NC: Tensor, codes_KC: Tensor, cosine: bool = False) -> Tensor:
    """In float64, so that it is right wherever float32 could be."""
    z, codes = z_NC.double(), codes_KC.double()
    if cosine:
        return (z @ (codes / codes.norm(dim=1, keepdim=True)).T).argmax(1)
    return (z[:, None] - codes).square().sum(2).argmin(1)


@dataclass(frozen=True)
class Scales:
    """Algorithms 1 and 2 of arXiv 2404.02905, word by word, for one image."""

    codes_KC: Tensor
    phi: list[tuple[Tensor, Tensor]]
    """Weight and bias for each scale."""
    patch_nums: tuple[int, ...]
    cosine: bool = False

    def add(self, k: int, r_pp: Tensor) -> Tensor:
        """What scale k adds: codes at the finest size, through its convolution with a share of a half."""
        P = self.patch_nums[-1]
        z = self.codes_KC[r_pp].permute(2, 0, 1)[None]
        if k < len(self.patch_nums) - 1:
            z = F.interpolate(z, (P, P), mode="bicubic")
        return 0.5 * z + 0.5 * F.conv2d(z, *self.phi[k], padding=1)

    def encode(self, f_CPP: Tensor) -> list[Tensor]:
        rest, found = f_CPP[None].clone(), []
        for k, p in enumerate(self.patch_nums):
            small = rest if k == len(self.patch_nums) - 1 else F.interpolate(rest, (p, p), mode="area")
            z_NC = small[0].permute(1, 2, 0).reshape(p * p, -1)
            found.append(nearest(z_NC, self.codes_KC, self.cosine).reshape(p, p))
            rest = rest - self.add(k, found[-1])
        return found

    def sums(self, r: list[Tensor]) -> list[Tensor]:
        """The sum [1, C, P, P] after each scale."""
        out, total = [], torch.zeros(())
        for k, r_pp in enumerate(r):
            total = total + self.add(k, r_pp)
            out.append(total)
        return out

    def var_input(self, r: list[Tensor]) -> Tensor:
        """[L - L_0, C]."""
        resized = [
            F.interpolate(total, (p, p), mode="area")[0].flatten(1).T
            for total, p in zip(self.sums(r), self.patch_nums[1:], strict=False)
        ]
        return torch.cat(resized)
