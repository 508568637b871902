"""Between uint8 pixels and what a tokenizer takes."""

import pytest
import torch
from pretended_gpu import GPU, Stream

from pipeline.errors import TokenizerError
from pipeline.models.tokenizers.pixels import Normalizer, normalize_pixels, to_pixels
from pipeline.records import Normalization

pytest_plugins = ["pretended_gpu"]

IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.mark.parametrize("normalization", [Normalization(), IMAGENET])
def test_pixels_survive_the_way_there_and_back(normalization: Normalization) -> None:
    img_B3HW = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    normalized = normalize_pixels(img_B3HW, normalization)
    assert normalized.dtype == torch.float32
    low, high = normalization.value_range
    assert normalized.min().item() == pytest.approx(low)
    assert normalized.max().item() == pytest.approx(high)
    assert torch.equal(to_pixels(normalized, normalization), img_B3HW)


def test_normalisation_is_per_channel() -> None:
    normalized = normalize_pixels(torch.full((1, 3, 1, 1), 51, dtype=torch.uint8), IMAGENET)
    expected = [(0.2 - mean) / std for mean, std in zip(IMAGENET.mean, IMAGENET.std, strict=True)]
    assert normalized.flatten().tolist() == pytest.approx(expected)


def test_to_pixels_rounds_and_clips() -> None:
    values = torch.tensor([-9.0, -1.0, 0.0, 0.999, 1.0, 9.0]).reshape(1, 1, 2, 3).expand(1, 3, 2, 3)
    assert to_pixels(values, Normalization())[0, 0].flatten().tolist() == [0, 0, 128, 255, 255, 255]


def test_pixels_that_were_scaled_before_are_refused() -> None:
    with pytest.raises(TokenizerError, match=r"must be uint8 from 0 to 255, not torch.float32"):
        normalize_pixels(torch.rand(1, 3, 4, 4), Normalization())


@pytest.mark.usefixtures("default_stream")
def test_mean_and_deviation_are_there_for_every_stream_once_one_has_asked_for_them() -> None:
    """Two threads share them: that which comes second waits for no stream but its own."""
    normalize, img_B3HW = Normalizer(IMAGENET), torch.zeros(1, 3, 2, 2, dtype=torch.uint8, device=GPU)
    with torch.cuda.stream(Stream()):  # type: ignore[arg-type]
        normalize(img_B3HW)
    with torch.cuda.stream(Stream()):  # type: ignore[arg-type]
        second = normalize(img_B3HW)
        torch.cuda.current_stream().synchronize()
    expected = normalize_pixels(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), IMAGENET)
    assert torch.equal(second.memory, expected)  # type: ignore[attr-defined]
