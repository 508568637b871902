"""Starting points for codes."""

import torch
from torch import Tensor

from pipeline.models.networks.kmeans import kmeans


def test_kmeans_lowers_the_distortion_and_takes_fewer_vectors_than_codes() -> None:
    torch.manual_seed(0)
    vectors_NC = torch.randn(2000, 8)

    def distortion(codes_KC: Tensor) -> float:
        return torch.cdist(vectors_NC, codes_KC).min(dim=1).values.square().mean().item()

    assert distortion(kmeans(vectors_NC, 32)) < 0.85 * distortion(vectors_NC[:32])
    few_KC = kmeans(vectors_NC[:3], 10)
    assert tuple(few_KC.shape) == (10, 8)
    assert few_KC.isfinite().all()
    assert torch.cdist(vectors_NC[:3], few_KC).min(dim=1).values.max() < 0.5
    assert len(few_KC.unique(dim=0)) == 10
