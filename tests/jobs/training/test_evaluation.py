"""Held-out images, rebuilt."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_pictures import configuration, picture
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.jobs.training import evaluation
from pipeline.jobs.training import job as train
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.source.images.transform import ImageTransform

pytest_plugins = ["fixtures_pictures"]


def test_held_out_figures_are_those_of_the_saved_tokenizer(pictures: Path, short_training: train.TrainSummary) -> None:
    tokenizer = load_tokenizer(short_training.folder, layout="raster")
    images = [Image.open(io.BytesIO(picture(100 + i))) for i in range(6)]
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    idx_Bl = tokenizer.encode(pixels / 127.5 - 1)
    rebuilt = ((tokenizer.decode(idx_Bl) + 1) * 127.5).round().clamp(0, 255)
    psnr = 10 * np.log10(255**2 / (rebuilt.double() - pixels).square().mean().item())
    shares = np.unique(idx_Bl[0].numpy(), return_counts=True)[1] / idx_Bl[0].numel()
    assert short_training.result.psnr == pytest.approx(psnr, abs=1e-4)
    assert short_training.result.perplexity == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-4)
    assert short_training.result.codes_used == len(shares)


def test_without_held_out_images_the_summary_says_so(pictures: Path, tmp_path: Path) -> None:
    summary = train.run(configuration(pictures, tmp_path, holdout=[], steps=2))
    assert summary.result.psnr is None
    assert "no held-out images (train.holdout)" in str(summary)
    assert not (tmp_path / "reconstructions.png").exists()


class OnADevice(ImageTransform):
    """As nvJPEG leaves them: on a device, and here without values."""

    def __call__(self, data: bytes, key: str = "") -> Tensor:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return super().__call__(data, key).to("cuda")


def test_images_that_are_decoded_on_a_device_are_kept_on_the_cpu(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are put beside what was rebuilt."""
    monkeypatch.setattr(evaluation, "ImageTransform", OnADevice)
    held_out = evaluation.load_held_out(configuration(pictures, tmp_path), 0, 1)
    assert held_out is not None
    assert (held_out.img_B3HW.device.type, len(held_out.img_B3HW)) == ("cpu", 6)
