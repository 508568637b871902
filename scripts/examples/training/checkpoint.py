"""Where a run of a training script stands, in its folder: its settings, weights, optimizer and place in the data."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.errors import ConfigError, VqtokError
from pipeline.files import LocalFiles
from pipeline.loader import TokenLoader
from pipeline.records import JSON, differences

SETTINGS, CHECKPOINT = "settings.json", "checkpoint.safetensors"


def check_settings(folder: Path, ours: JSON) -> None:
    """Raises ConfigError for a folder with the checkpoint of other settings, or with files of another kind."""
    remedy = "choose another --output, or delete the folder"
    if (folder / CHECKPOINT).exists():
        lines = differences(ours, json.loads((folder / SETTINGS).read_bytes()))
        if lines:
            raise ConfigError(f"{folder}: was begun with other settings; {remedy}\n  " + "\n  ".join(lines))
    elif any(folder.glob("[!.]*")) and not (folder / SETTINGS).exists():
        raise ConfigError(f"{folder}: holds other files than a run of this script; {remedy}")


def save_checkpoint(
    folder: Path, step: int, net: nn.Module, optimizer: Any, loader: TokenLoader, accelerator: Accelerator
) -> None:
    """All in one file, renamed into its place: a kill leaves the old one or the new one."""
    tensors = {f"model.{name}": value for name, value in net.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{moment}": value for moment, value in state.items()}
    scaler = accelerator.scaler.state_dict() if accelerator.scaler else {}  # of fp16
    place = {"step": step, "loader": loader.state_dict(), "scaler": scaler}
    LocalFiles(folder).put(CHECKPOINT, save(tensors, {"place": json.dumps(place)}))


def load_checkpoint(folder: Path, net: nn.Module, optimizer: Any, loader: TokenLoader, accelerator: Accelerator) -> int:
    """Go on where the checkpoint was saved: returns the steps done, 0 without one. Raises VqtokError."""
    if not (folder / CHECKPOINT).exists():
        return 0
    try:
        with safe_open(folder / CHECKPOINT, "pt") as file:
            place = json.loads(file.metadata()["place"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise VqtokError(f"{folder / CHECKPOINT}: cannot be read ({error}); delete {folder} and train again") from None
    weights: dict[str, Tensor] = {}
    moments: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, value in tensors.items():
        owner, _, rest = name.partition(".")
        if owner == "model":
            weights[rest] = value
        else:
            number, _, moment = rest.partition(".")
            moments[int(number)][moment] = value
    net.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    loader.load_state_dict(place["loader"])
    if accelerator.scaler:
        accelerator.scaler.load_state_dict(place["scaler"])
    return place["step"]


def begin_folder(folder: Path, ours: JSON) -> None:
    """Write down the settings, and remove what a killed run left half written."""
    for leftover in folder.glob(".tmp-*"):
        leftover.unlink()
    LocalFiles(folder).put(SETTINGS, json.dumps(ours, indent=1).encode())
