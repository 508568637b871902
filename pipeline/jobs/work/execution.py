"""How tokens are made: what may flip a few codes without being a different configuration."""

import os
from importlib.metadata import version

import torch

from pipeline.config import Config
from pipeline.errors import IdentityMismatch
from pipeline.jobs.plan import Plan
from pipeline.records import JSON, differences
from pipeline.source.images.nvjpeg import nvjpeg_version
from pipeline.source.images.vision import torchvision_version
from pipeline.store.schema.commits import read_commit


def describe_execution(config: Config, device: torch.device, images_at_once: int, search: str | None = None) -> JSON:
    """Precision, kind of device, batch shape and library versions, for commit records.

    Args:
        search: of nearest codes, where it is not torch's.
    """
    return {
        "precision": config.tokenize.precision,
        "device": describe_device(device),
        "batch_size": config.tokenize.batch_size,
        "images_at_once": images_at_once,
        **({} if search is None else {"search": search}),
        "versions": {
            **{name: version(name) for name in _libraries(config)},
            **(_cuda_versions(config) if device.type == "cuda" else {}),
        },
    }


def describe_device(device: torch.device) -> str:
    """What kind of device it is."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _libraries(config: Config) -> tuple[str, ...]:
    libraries = ("torch", "torchvision", "pillow")
    return (*libraries, "simplejpeg") if config.image.decoder == "turbojpeg" else libraries


def _cuda_versions(config: Config) -> dict[str, str | None]:
    """What packages of one version may differ in, for they are built for each version of CUDA (`2.11.0+cu130`)."""
    nvjpeg = {"nvjpeg": nvjpeg_version()} if config.image.decoder == "nvjpeg" else {}
    cudnn = torch.backends.cudnn.version()
    return {"torch": torch.__version__, "torchvision": torchvision_version, "cudnn": cudnn and str(cudnn), **nvjpeg}


def refuse_other_execution(plan: Plan, execution: JSON) -> None:
    """Raise IdentityMismatch when the store's parts were made in another way than this job would.

    One commit is compared: all others agreed with it, or somebody allowed the change.
    """
    if not plan.committed:
        return
    present = read_commit(plan.store, min(plan.committed)).execution
    lines = differences(execution, present)
    if lines:
        raise IdentityMismatch(
            os.linesep.join(
                [
                    f"{plan.store.root}: made in another way (there) than this job would; a few tokens may differ:",
                    *(f"  {line}" for line in lines),
                    "Use the same settings, or accept the mixture with --allow-execution-change.",
                ]
            )
        )
