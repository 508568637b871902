"""SplitMix64."""

import numpy as np

from pipeline.loader.splitmix import splitmix64


def test_hashes_are_splitmix64() -> None:
    """The first outputs for the seed 1234567, as they are published for Vigna's splitmix64.c."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(1234567, np.arange(5)).tolist() == expected
    assert splitmix64(1234567, np.array([3])).tolist() == expected[3:4]
