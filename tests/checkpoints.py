"""Files as the authors of tokenizers publish them, small."""

from pathlib import Path
from typing import Any

import torch
from published import LLAMAGEN, TAMING, VAR, Family, State, phi_tensors

SIDES = (1, 2)
"""Scales that suit 32 x 32 pixels at 16 pixels per token."""


def var_state(family: Family = VAR, phis: tuple[str, ...] = tuple(f"qresi_ls.{n}" for n in range(4))) -> State:
    """A bare state dict of VAR's, with statistics of ten scales riding along."""
    state = family.tensors()
    return {**state, **phi_tensors(family.C, [*phis]), "quantize.ema_vocab_hit_SV": torch.zeros(10, family.K)}


def llamagen_state(family: Family = LLAMAGEN) -> State:
    return {**family.tensors(), "quantize.codebook_used": torch.zeros(65536)}


def taming_state(family: Family = TAMING) -> State:
    return {
        **family.tensors(),
        "loss.logvar": torch.zeros(()),
        "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4),
        "loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1, 4, 1, 1),
    }


def save(path: Path, tree: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tree, path)
    return path


def save_var(path: Path) -> Path:
    return save(path, var_state())


def save_llamagen(path: Path) -> Path:
    return save(path, {"model": llamagen_state(), "optimizer": {"state": {}, "param_groups": []}, "steps": 3})


def save_taming(path: Path) -> Path:
    return save(
        path, {"state_dict": taming_state(), "epoch": 7, "global_step": 9, "pytorch-lightning_version": "1.0.8"}
    )
