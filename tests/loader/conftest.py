"""For every test of the loader: nobody waits for workers of PyTorch that do not end by themselves."""

from collections.abc import Iterator

import pytest
from torch.utils.data import _utils


@pytest.fixture(scope="package", autouse=True)
def short_wait_for_workers() -> Iterator[None]:
    """PyTorch gives each worker whose iteration failed five seconds before it is terminated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.3)
        yield
