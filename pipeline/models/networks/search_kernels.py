"""What `search_fused` runs on a GPU. Importing this needs Triton, which torch brings along on Linux with CUDA.

Shape letters: N vectors, K codes, C their length. A program holds TN vectors and goes through the codes TK at a time,
and through their C numbers TC at a time. Distances are |e|² − 2 z·e and exist in registers only.

Rows and codes beyond the end are copies of the last one: no load needs a mask for them.
"""

import triton
import triton.language as tl

_LAST = tl.constexpr(0x7FFFFFFF)
"""Above every index."""

_SIZES = ("N", "K", "S", "tiles_each")
"""What a kernel is not compiled anew for."""


@triton.jit
def _part(numbers, inside, C: tl.constexpr, TC: tl.constexpr):
    """The numbers `inside` of vectors or codes, zeros behind the last one."""
    return tl.load(numbers + inside) if C % TC == 0 else tl.load(numbers + inside, mask=inside < C, other=0.0)


@triton.jit
def _tf32(values):
    """Rounded to the 10 bits of mantissa that tensor cores read of a float32."""
    return ((values.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def _add_products(z, big, small, sums):
    """z·e in three products of TF32: all but the one of what both have lost in rounding."""
    z_big = _tf32(z)
    sums = tl.dot(z - z_big, big, sums, input_precision="tf32")
    sums = tl.dot(z_big, small, sums, input_precision="tf32")
    return tl.dot(z_big, big, sums, input_precision="tf32")


@triton.jit(do_not_specialize=_SIZES)
def two_nearest(
    z_NC,
    big_KC,
    small_KC,
    squared_K,
    least_SN,
    second_SN,
    index_SN,
    N,
    K,
    tiles_each,
    C: tl.constexpr,
    TN: tl.constexpr,
    TK: tl.constexpr,
    TC: tl.constexpr,
):
    """The least distance to any code of a split, its index, and the least distance but for that one, nearly.

    Programs (row tile, split); a split is `tiles_each` tiles of codes. Codes are `big_KC` + `small_KC`, both in TF32.
    What it finds for numbers that are not finite means nothing.
    """
    rows = tl.program_id(0) * TN + tl.arange(0, TN)
    first = tl.program_id(1) * tiles_each
    parts, columns = tl.arange(0, TC), tl.arange(0, TK)
    z_rows = z_NC + tl.minimum(rows, N - 1).to(tl.int64)[:, None] * C
    if TC >= C:
        z = _part(z_rows, parts[None, :], C, TC)
    # Every place in a tile keeps its own minimum, so that nothing is compared across threads before the end.
    least = tl.full([TN, TK], float("inf"), tl.float32)
    second = tl.full([TN, TK], float("inf"), tl.float32)
    tile_of = tl.zeros([TN, TK], tl.int32)
    for tile in tl.range(first, tl.minimum(first + tiles_each, tl.cdiv(K, TK))):
        codes = tile * TK + columns
        offsets = tl.minimum(codes, K - 1) * C
        sums = tl.zeros([TN, TK], tl.float32)
        if TC >= C:
            big = _part(big_KC + offsets[None, :], parts[:, None], C, TC)
            small = _part(small_KC + offsets[None, :], parts[:, None], C, TC)
            sums = _add_products(z, big, small, sums)
        else:
            for start in tl.range(0, C, TC):
                inside = start + parts
                z = _part(z_rows, inside[None, :], C, TC)
                big = _part(big_KC + offsets[None, :], inside[:, None], C, TC)
                small = _part(small_KC + offsets[None, :], inside[:, None], C, TC)
                sums = _add_products(z, big, small, sums)
        distances = tl.load(squared_K + codes, mask=codes < K, other=float("inf"))[None, :] - 2 * sums
        tile_of = tl.where(distances < least, tile, tile_of)
        second = tl.minimum(second, tl.maximum(least, distances))
        least = tl.minimum(least, distances)
    index = tile_of * TK + columns[None, :]
    nearest = tl.min(least, axis=1)
    winner = tl.min(tl.where(least == nearest[:, None], index, _LAST), axis=1)
    others = tl.where(index == winner[:, None], second, least)
    at = tl.program_id(1) * N + rows
    tl.store(least_SN + at, nearest, mask=rows < N)
    tl.store(second_SN + at, tl.min(others, axis=1), mask=rows < N)
    tl.store(index_SN + at, winner, mask=rows < N)


@triton.jit(do_not_specialize=_SIZES)
def settle(least_SN, second_SN, index_SN, margin_N, keys_N, close_N, count, N, S, TN: tl.constexpr):
    """The index of each vector whose two least distances are more than a margin apart, into `keys_N`.

    The others are listed in `close_N`, in any order, as many as `count`; their keys are above all others. So are those
    of vectors whose margin or distances are not finite.
    """
    rows = tl.program_id(0) * TN + tl.arange(0, TN)
    kept = rows < N
    least = tl.full([TN], float("inf"), tl.float32)
    second = tl.full([TN], float("inf"), tl.float32)
    index = tl.zeros([TN], tl.int32)
    for split in tl.range(0, S):
        at = split * N + rows
        nearest = tl.load(least_SN + at, mask=kept)
        index = tl.where(nearest < least, tl.load(index_SN + at, mask=kept), index)
        second = tl.minimum(tl.minimum(second, tl.load(second_SN + at, mask=kept)), tl.maximum(least, nearest))
        least = tl.minimum(least, nearest)
    clear = second - least > tl.load(margin_N + rows, mask=kept)
    close = kept & (clear == 0)  # true of NaN
    tl.store(keys_N + rows, tl.where(close, 0x7FFFFFFFFFFFFFFF, index.to(tl.int64)), mask=kept)
    listed = close.to(tl.int32)
    start = tl.atomic_add(count, tl.sum(listed))
    tl.store(close_N + start + tl.cumsum(listed) - listed, rows, mask=close)


@triton.jit(do_not_specialize=_SIZES)
def nearest_of_listed(
    z_NC,
    codes_KC,
    squared_K,
    close_N,
    count,
    keys_N,
    K,
    tiles_each,
    C: tl.constexpr,
    TN: tl.constexpr,
    TK: tl.constexpr,
    TC: tl.constexpr,
):
    """The search in float32, of the vectors listed: `keys_N` & 0x7FFFFFFF becomes the index of each.

    NaN is nearest of all, as for torch; the lowest index wins a tie. Any number of programs share the work: each takes
    a row tile and a split of the codes, then another.
    """
    listed = tl.load(count)
    splits = tl.cdiv(tl.cdiv(K, TK), tiles_each)
    parts, columns = tl.arange(0, TC), tl.arange(0, TK)
    for item in tl.range(tl.program_id(0), tl.cdiv(listed, TN) * splits, tl.num_programs(0)):
        places = item // splits * TN + tl.arange(0, TN)
        rows = tl.load(close_N + tl.minimum(places, listed - 1))
        z_rows = z_NC + rows.to(tl.int64)[:, None] * C
        first = item % splits * tiles_each
        least = tl.full([TN, TK], float("inf"), tl.float32)
        tile_of = tl.zeros([TN, TK], tl.int32) + first
        for tile in tl.range(first, tl.minimum(first + tiles_each, tl.cdiv(K, TK))):
            # A copy of the last code is as near as that, and has a higher index.
            codes = tl.minimum(tile * TK + columns, K - 1)
            sums = tl.zeros([TN, TK], tl.float32)
            for start in tl.range(0, C, TC):
                inside = start + parts
                z = _part(z_rows, inside[None, :], C, TC)
                e = _part(codes_KC + codes[None, :] * C, inside[:, None], C, TC)
                sums = tl.dot(z, e, sums, input_precision="ieee")
            distances = tl.load(squared_K + codes)[None, :] - 2 * sums
            lower = tl.minimum(least, distances, propagate_nan=tl.PropagateNan.ALL)
            changed = lower.to(tl.int32, bitcast=True) != least.to(tl.int32, bitcast=True)  # a NaN equals itself here
            tile_of = tl.where(changed, tile, tile_of)
            least = lower
        # As integers distances are in order once those below zero are turned around.
        bits = least.to(tl.int32, bitcast=True)
        bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        bits = tl.where(least != least, -0x80000000, bits)
        keys = (bits.to(tl.int64) << 32) | (tile_of * TK + columns[None, :]).to(tl.int64)
        tl.atomic_min(keys_N + rows, tl.min(keys, axis=1), mask=places < listed)
