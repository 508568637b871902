"""Group norm, SiLU and sums of residual blocks over channels_last memory, as Triton kernels. Imports triton.

torch's own group norm on CUDA makes such tensors contiguous and back, which takes twice as long as all convolutions.
Here a norm reads its input twice and writes once: the moments of each channel over stretches of positions, then those
of a group, then the values. All sums are float32.

Shape letters: B images, N positions of an image, D channels, G groups, S stretches of positions.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.models.networks.triton_options import FUSED

# What one program holds at once: so many positions of so many channels. Moments take three registers for each value.
_ROWS, _ROWS_OF_MOMENTS, _COLUMNS = 64, 32, 64
_STRETCH = 1024  # positions whose moments one program takes, at least
_MOST_STRETCHES = 64  # of an image, so that their moments fit into one program


def group_norm(
    x_BDHW: Tensor, weight_D: Tensor, bias_D: Tensor, groups: int, eps: float, silu: bool, added_D: Tensor | None = None
) -> Tensor:
    """Group norm of x + added, with SiLU behind it where asked for; of the dtype and in the memory format of x.

    Args:
        x_BDHW: float32, bfloat16 or float16 on CUDA, in channels_last memory.
        added_D: a number for each channel, such as the bias of the convolution that made x.
    """
    B, D, H, W = x_BDHW.shape
    N = H * W
    stretch = max(_STRETCH, triton.next_power_of_2(triton.cdiv(N, _MOST_STRETCHES)))
    S = triton.cdiv(N, stretch)
    moments_2BSD = x_BDHW.new_empty(2, B, S, D, dtype=torch.float32)
    factors_2BD = x_BDHW.new_empty(2, B, D, dtype=torch.float32)
    out_BDHW = torch.empty_like(x_BDHW)
    columns = min(_COLUMNS, triton.next_power_of_2(D))
    blocks = triton.cdiv(D, columns)
    with torch.cuda.device_of(x_BDHW):
        _moments[(S, blocks, B)](
            x_BDHW,
            moments_2BSD[0],
            moments_2BSD[1],
            N,
            D,
            STRETCH=stretch,
            ROWS=_ROWS_OF_MOMENTS,
            COLUMNS=columns,
            **FUSED,
        )
        _factors[(B, groups)](
            *(moments_2BSD[0], moments_2BSD[1], weight_D, bias_D, weight_D if added_D is None else added_D),
            *(factors_2BD[0], factors_2BD[1], N, D, S, eps),
            ADDED=added_D is not None,
            STRETCH=stretch,
            STRETCHES=triton.next_power_of_2(S),
            GROUP=D // groups,
            COLUMNS=triton.next_power_of_2(D // groups),
            **FUSED,
        )
        _apply[(triton.cdiv(N, _ROWS), blocks, B)](
            x_BDHW, factors_2BD[0], factors_2BD[1], out_BDHW, N, D, SILU=silu, ROWS=_ROWS, COLUMNS=columns, **FUSED
        )
    return out_BDHW


def with_bias(x_BDHW: Tensor, added_D: Tensor) -> Tensor:
    """x + added, in the memory of x, which is channels_last. torch's sum of both takes twice as long.

    Args:
        added_D: a number for each channel.
    """
    return _launch_sum(x_BDHW, x_BDHW, added_D, None, x_BDHW, sums=False)


def padded(x_BDHW: Tensor) -> Tensor:
    """[B, D, H + 1, W + 1] with zeros as the last row and column, in channels_last memory as x is."""
    B, D, H, W = x_BDHW.shape
    out_BDHW = x_BDHW.new_empty(B, H + 1, W + 1, D).permute(0, 3, 1, 2)
    columns = min(_COLUMNS, triton.next_power_of_2(D))
    with torch.cuda.device_of(x_BDHW):
        _pad[(triton.cdiv((H + 1) * (W + 1), _ROWS), triton.cdiv(D, columns), B)](
            x_BDHW, out_BDHW, H, W, D, ROWS=_ROWS, COLUMNS=columns, **FUSED
        )
    return out_BDHW


def residual_sum(x_BDHW: Tensor, h_BDHW: Tensor, added_D: Tensor, x_added_D: Tensor | None) -> Tensor:
    """(x + x_added) + (h + added), rounded once; both in channels_last memory and of one dtype.

    Args:
        added_D: a number for each channel of h, `x_added_D` of x.
    """
    return _launch_sum(x_BDHW, h_BDHW, added_D, x_added_D, torch.empty_like(x_BDHW), sums=True)


def _launch_sum(
    x_BDHW: Tensor, h_BDHW: Tensor, added_D: Tensor, x_added_D: Tensor | None, out_BDHW: Tensor, sums: bool
) -> Tensor:
    B, D, H, W = x_BDHW.shape
    columns = min(_COLUMNS, triton.next_power_of_2(D))
    with torch.cuda.device_of(x_BDHW):
        _sum[(triton.cdiv(H * W, _ROWS), triton.cdiv(D, columns), B)](
            *(x_BDHW, h_BDHW, added_D, added_D if x_added_D is None else x_added_D, out_BDHW, H * W, D),
            SUMS=sums,
            X_ADDED=x_added_D is not None,
            ROWS=_ROWS,
            COLUMNS=columns,
            **FUSED,
        )
    return out_BDHW


@triton.jit
def _moments(x, means, squares, N, D, STRETCH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mean, and sum of squared distances from it, of some channels over one stretch (Welford, then Chan et al.)."""
    stretch, image, stretches = tl.program_id(0), tl.program_id(2), tl.num_programs(0)
    channels = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    lanes = tl.arange(0, ROWS)
    x += image.to(tl.int64) * N * D
    count = tl.zeros([ROWS, 1], tl.float32)
    mean = tl.zeros([ROWS, COLUMNS], tl.float32)
    square = tl.zeros([ROWS, COLUMNS], tl.float32)
    begin = stretch * STRETCH
    for first in range(begin, tl.minimum(begin + STRETCH, N), ROWS):
        positions = first + lanes
        there = (positions < N)[:, None]
        mask = there & (channels < D)[None, :]
        value = tl.load(x + positions.to(tl.int64)[:, None] * D + channels[None, :], mask, 0.0).to(tl.float32)
        count += there.to(tl.float32)
        delta = tl.where(there, value - mean, 0.0)
        mean += delta / tl.maximum(count, 1.0)
        square += delta * (value - mean)
    total = tl.sum(count)
    whole = tl.sum(mean * count, axis=0) / total
    off = mean - whole[None, :]
    spread = tl.sum(square + off * off * count, axis=0)
    place = (image.to(tl.int64) * stretches + stretch) * D + channels
    tl.store(means + place, whole, channels < D)
    tl.store(squares + place, spread, channels < D)


@triton.jit
def _factors(
    means,
    squares,
    weight,
    bias,
    added,
    scales,
    shifts,
    N,
    D,
    S,
    eps,
    ADDED: tl.constexpr,
    STRETCH: tl.constexpr,
    STRETCHES: tl.constexpr,
    GROUP: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Factor and summand of each channel of one group: what the norm does to x."""
    image, group = tl.program_id(0), tl.program_id(1)
    stretches, column = tl.arange(0, STRETCHES), tl.arange(0, COLUMNS)
    own = column < GROUP
    channels = group * GROUP + column
    mask = (stretches < S)[:, None] & own[None, :]
    place = (image.to(tl.int64) * S + stretches)[:, None] * D + channels[None, :]
    counts = tl.minimum(N - stretches * STRETCH, STRETCH).to(tl.float32)[:, None]
    counts = tl.where(mask, counts, 0.0)
    extra = tl.load(added + channels, own & ADDED, 0.0).to(tl.float32)
    mean = tl.load(means + place, mask, 0.0) + extra[None, :]
    total = N * (1.0 * GROUP)
    whole = tl.sum(tl.sum(mean * counts, axis=1), axis=0) / total
    off = mean - whole
    square = tl.load(squares + place, mask, 0.0) + off * off * counts
    variance = tl.sum(tl.sum(square, axis=1), axis=0) / total
    scale = tl.load(weight + channels, own, 0.0).to(tl.float32) * (1 / tl.sqrt(variance + eps))
    shift = tl.load(bias + channels, own, 0.0).to(tl.float32) + (extra - whole) * scale
    tl.store(scales + image * D + channels, scale, own)
    tl.store(shifts + image * D + channels, shift, own)


@triton.jit
def _apply(x, scales, shifts, out, N, D, SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """x * scale + shift of some channels at some positions, with SiLU where asked for."""
    image = tl.program_id(2)
    positions = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (positions < N)[:, None] & (channels < D)[None, :]
    place = (image.to(tl.int64) * N + positions)[:, None] * D + channels[None, :]
    scale = tl.load(scales + image * D + channels, channels < D, 0.0)
    shift = tl.load(shifts + image * D + channels, channels < D, 0.0)
    value = tl.load(x + place, mask, 0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SILU:
        value = value / (1 + tl.exp(-value))
    tl.store(out + place, value.to(out.dtype.element_ty), mask)


@triton.jit
def _sum(
    x,
    h,
    added,
    x_added,
    out,
    N,
    D,
    SUMS: tl.constexpr,
    X_ADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """h + added, and with SUMS x, with X_ADDED x_added: of some channels at some positions."""
    image = tl.program_id(2)
    positions = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (positions < N)[:, None] & (channels < D)[None, :]
    place = (image.to(tl.int64) * N + positions)[:, None] * D + channels[None, :]
    value = tl.load(h + place, mask, 0.0).to(tl.float32)
    value += tl.load(added + channels, channels < D, 0.0).to(tl.float32)[None, :]
    if SUMS:
        left = tl.load(x + place, mask, 0.0).to(tl.float32)
        if X_ADDED:
            left += tl.load(x_added + channels, channels < D, 0.0).to(tl.float32)[None, :]
        value += left
    tl.store(out + place, value.to(out.dtype.element_ty), mask)


@triton.jit
def _pad(x, out, H, W, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """x or zeros, at some positions of what is one row and one column larger."""
    image = tl.program_id(2).to(tl.int64)
    positions = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row, column = positions // (W + 1), positions % (W + 1)
    there, own = (row < H) & (column < W), channels < D
    source = (image * H + row) * W + column
    target = image * (H + 1) * (W + 1) + positions
    value = tl.load(x + source[:, None] * D + channels[None, :], there[:, None] & own[None, :], 0.0)
    mask = (row <= H)[:, None] & own[None, :]
    tl.store(out + target[:, None] * D + channels[None, :], value, mask)
