"""A training under torchrun whose processes compare their codebooks at its end: python ranks.py CONFIG."""

import hashlib
import sys

from accelerate.utils import gather_object

from pipeline.config import load_config
from pipeline.jobs.training.birth import TrainResult
from pipeline.jobs.training.display import Display
from pipeline.jobs.training.loop import Training
from pipeline.process.signals import stop_request
from pipeline.world import end_process

_finish = Training._finish


def _compared(training: Training, reporter: Display) -> TrainResult:
    codebook = training._model.quantize.get_codebook().detach().cpu().numpy().tobytes()
    digests = gather_object([hashlib.sha256(codebook).hexdigest()])
    assert len(set(digests)) == 1, f"codebooks differ: {digests}"
    return _finish(training, reporter)


if __name__ == "__main__":
    Training._finish = _compared  # type: ignore[assignment,method-assign]
    with stop_request("ended at once") as request:
        Training(load_config(sys.argv[1]), allow_slow=True).run(request)
    end_process()
