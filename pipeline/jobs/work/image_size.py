"""Image sizes that a tokenizer cannot take, before anything is made for them."""

from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import ConfigError, TokenizerError

T = TypeVar("T")


def taking(size: tuple[int, int], ask: Callable[[], T], factor: int, tokenizer: str) -> T:
    """The answer of a tokenizer that is asked about an `image.size` of (height, width) pixels.

    Args:
        factor: pixels per token along each side.
        tokenizer: what it is called in the message.

    Raises ConfigError where the tokenizer raises TokenizerError, with sizes near it, of which it is none itself.
    """
    try:
        return ask()
    except TokenizerError as error:
        near = _near(size, factor)
        sizes = " or ".join(f"{height} x {width}" for height, width in near)
        remedy = f"such as {sizes}" if near != [size] else f"a token is {factor} pixels along each side"
        raise ConfigError(f"image.size: {tokenizer} cannot take it: {error}; {remedy}") from error


def _near(size: tuple[int, int], factor: int) -> list[tuple[int, int]]:
    """The next smaller and the next larger size whose sides are multiples of a factor."""
    (small_h, large_h), (small_w, large_w) = (
        (max(side // factor, 1) * factor, -(-side // factor) * factor) for side in size
    )
    return sorted({(small_h, small_w), (large_h, large_w)})
