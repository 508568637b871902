"""Originals above their reconstructions."""

import io

import numpy as np
import torch
from PIL import Image

from pipeline.jobs.pictures import comparison_png


def test_a_picture_shows_each_original_above_its_reconstruction() -> None:
    originals = torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1).expand(10, 3, 4, 4) * 10
    png = Image.open(io.BytesIO(comparison_png(originals, originals + 100)))
    pixels = np.array(png)
    cell = 4 + 2  # an image and the line beside it
    shown = pixels[3::cell, 3::cell, 0]
    assert shown.shape == (4, 8)
    assert (shown[1, :8] == shown[0, :8] + 100).all()
    assert shown[2, :3].tolist() == [80, 90, 255]
    assert shown[3, :3].tolist() == [180, 190, 255]
