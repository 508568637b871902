"""Where the time of a short job goes: CPU seconds of one tokenizing process, from its first line on.

python scripts/benchmarks/costs/starting.py CONFIG        prints them as JSON
"""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

IMPORTS = {
    "the command line: click, pydantic, numpy": "pipeline.cli",
    "torch": "torch",
    "torchvision": "pipeline.source.images.vision",
    "zarr": "zarr",
    "accelerate": "accelerate",
    "the rest of vqtok": "pipeline.jobs.tokenizing.job",
}
"""What a process imports, in this order."""

WORK = "reading, decoding, encoding, writing"


def measure(config: Path) -> dict[str, float]:
    """CPU seconds of each import, and of the job itself, in a process of its own."""
    return dict(json.loads(subprocess.check_output([sys.executable, __file__, str(config)])))


def main(config: str) -> None:
    seconds: dict[str, float] = {}
    before = 0.0
    for name, module in IMPORTS.items():
        importlib.import_module(module)
        before, seconds[name] = time.process_time(), time.process_time() - before
    from pipeline.config import load_config
    from pipeline.jobs.tokenizing import job

    job.run(load_config(config), show_progress=False)
    seconds[WORK] = time.process_time() - before
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1])
