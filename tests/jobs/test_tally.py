import numpy as np
import pytest
import torch

from pipeline.jobs.tally import MeanImage, Tally


@pytest.mark.parametrize("count", [2, 5, 150])
def test_the_mean_of_the_others_predicts_an_image_so_well(count: int) -> None:
    img_B3HW = torch.randint(0, 256, (count, 3, 4, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = img_B3HW.numpy().astype(float)
    errors = [np.square(pixels[i] - np.delete(pixels, i, axis=0).mean(axis=0)).mean() for i in range(count)]
    assert MeanImage.of(img_B3HW).psnr == pytest.approx(10 * np.log10(255**2 / np.mean(errors)))
    halves = [MeanImage.of(part).sums for part in (img_B3HW[:1], img_B3HW[1:], img_B3HW[:0])]
    assert torch.equal(sum(halves[1:], halves[0]), MeanImage.of(img_B3HW).sums)  # as several processes add them up


def test_a_single_image_and_equal_ones_have_no_mean_to_be_worse_than() -> None:
    img_B3HW = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    assert MeanImage.of(img_B3HW).psnr is None
    assert MeanImage.of(img_B3HW.expand(5, -1, -1, -1)).psnr is None
    assert MeanImage.of(img_B3HW[:0]).psnr is None


def test_psnr_is_taken_over_all_pixels_and_sums_add_up() -> None:
    tally, parts = Tally.empty(4, torch.device("cpu")), []
    black = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for error, codes in ((10, [0, 0]), (30, [1, 3])):
        part = Tally.empty(4, torch.device("cpu"))
        for one in (tally, part):
            one.add(black, black + error, torch.tensor(codes))
        parts.append(part)
    assert tally.psnr == pytest.approx(10 * np.log10(255**2 / 500))
    assert tally.perplexity == pytest.approx(np.exp(1.5 * np.log(2)))
    assert tally.codes_used == 3
    assert torch.equal(parts[0].sums + parts[1].sums, tally.sums)


def test_a_perfect_reconstruction_has_a_finite_psnr() -> None:
    tally = Tally.empty(1, torch.device("cpu"))
    image = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    tally.add(image, image, torch.zeros(1, dtype=torch.int64))
    assert 60 < tally.psnr < 100
    assert tally.perplexity == 1
