"""What every launch of a kernel in Triton states, whatever the version of Triton would choose."""

FUSED = {"enable_fp_fusion": True}
"""Products and sums in one rounding, as ever: Triton 3.10 no longer does so unasked, and 3.9 warns of it."""
