"""What published checkpoints of the VQ-GAN family call the tensors of `Vqgan`. Imports no torch.

In the beginnings of names that a dialect lists, `{L}` is a level, `{R}` a level counted from the coarsest, and `{N}` a
block of a level or whatever else is numbered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

_HOLE = re.compile(r"\{([LRN])\}")
_SIDES = ("encoder", "decoder")


@dataclass(frozen=True)
class Dialect:
    """The names in one family of checkpoints."""

    parts: Mapping[str, str]
    """Beginnings of names: ours, and theirs. The longest that fits counts."""
    qkv: tuple[str, ...] = ("q", "k", "v")
    """What the rows of `qkv` are in, one after the other."""
    layers: Mapping[str, str] = field(default_factory=lambda: {"out": "proj_out", "shortcut": "nin_shortcut"})
    """Layers of a block that have another name there, by ours."""
    ignored: tuple[str, ...] = ()
    """Beginnings of names of what decides no token: statistics, and what only training needs."""
    whole: str = ""
    """What these names begin with in the checkpoint of a whole model, in which everything else is another part."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Beginnings of names in checkpoints of models that are not taken, and what they are."""

    def sources(self, ours: str, levels: Mapping[str, int]) -> tuple[str, ...]:
        """Their names for a tensor of ours; the rows of several, one after the other, are those of ours.

        Args:
            levels: of `encoder` and `decoder`.
        """
        for mine, theirs in self._parts():
            if found := _pattern(mine).match(ours):
                layer, dot, tail = ours[found.end() :].partition(".")
                layers = self.qkv if layer == "qkv" else (self.layers.get(layer, layer),)
                start = _filled(theirs, _turned(found.groupdict(), mine, levels))
                return tuple(f"{start}{name}{dot}{tail}" for name in layers)
        return (ours,)

    def translated(self, names: Iterable[str]) -> dict[str, str]:
        """Our names, by theirs, of the tensors that the dialect knows. All that become `qkv` have one in common."""
        theirs = list(names)
        levels = self.levels(theirs)
        found = ((name, self._translated(name, levels)) for name in theirs)
        return {name: ours for name, ours in found if ours is not None}

    def levels(self, names: Iterable[str]) -> dict[str, int]:
        """How many levels encoder and decoder have, by what blocks there are."""
        count = dict.fromkeys(_SIDES, 0)
        blocks = {side: _pattern(self.parts[f"{side}.levels.{{L}}.residuals.{{N}}."]) for side in _SIDES}
        for name in names:
            for side, block in blocks.items():
                if found := block.match(name):
                    places = found.groupdict()
                    count[side] = max(count[side], 1 + int(places.get("L") or places["R"]))
        return count

    def _translated(self, name: str, levels: Mapping[str, int]) -> str | None:
        inner = {theirs: ours for ours, theirs in self.layers.items()} | dict.fromkeys(self.qkv, "qkv")
        for mine, theirs in self._parts():
            if found := _pattern(theirs).match(name):
                layer, dot, tail = name[found.end() :].partition(".")
                return _filled(mine, _turned(found.groupdict(), mine, levels)) + inner.get(layer, layer) + dot + tail
        return None

    def _parts(self) -> list[tuple[str, str]]:
        return sorted(self.parts.items(), key=lambda part: -len(part[0]))


def _turned(places: Mapping[str, str], mine: str, levels: Mapping[str, int]) -> dict[str, str]:
    """The numbers in a name, with the level counted from both ends."""
    last = levels.get(mine.partition(".")[0], 0) - 1
    turned = {other: str(last - int(places[one])) for one, other in ("LR", "RL") if one in places}
    return {**turned, **places}


def _filled(template: str, places: Mapping[str, str]) -> str:
    return _HOLE.sub(lambda hole: places[hole[1]], template)


def _pattern(template: str) -> re.Pattern[str]:
    texts = _HOLE.split(template)  # text and placeholder in turns
    return re.compile("".join(rf"(?P<{text}>\d+)" if at % 2 else re.escape(text) for at, text in enumerate(texts)))


def _parts(
    down: str, up: str, block: str, middle: tuple[str, str, str], resample: str = "sample.conv"
) -> dict[str, str]:
    """Names that differ in little.

    Args:
        down: where the levels of the encoder are; up: those of the decoder.
        block: what residual blocks are called.
        middle: the three parts there.
    """
    parts = {
        "encoder.quant_conv.": "quant_conv.",
        "decoder.quant_conv.": "post_quant_conv.",
        "quantize.embedding.": "quantize.embedding.",
    }
    for side, level, way in (("encoder", down, "down"), ("decoder", up, "up")):
        ours = f"{side}.levels.{{L}}."
        parts |= {f"{side}.{name}.": f"{side}.{name}." for name in ("conv_in", "norm_out", "conv_out")}
        parts |= {
            f"{ours}residuals.{{N}}.": f"{side}.{level}.{block}.{{N}}.",
            f"{ours}attentions.{{N}}.": f"{side}.{level}.attn.{{N}}.",
        }
        parts[f"{ours}resample."] = f"{side}.{level}.{way}{resample}."
        for name, theirs in zip(("before", "attention", "after"), middle, strict=True):
            parts[f"{side}.middle.{name}."] = f"{side}.mid.{theirs}."
    return parts


_TRAINING = ("loss.", "discriminator.", "disc.", "perceptual_loss.")

TAMING = Dialect(
    _parts("down.{L}", "up.{L}", "block", ("block_1", "attn_1", "block_2")),
    ignored=(*_TRAINING, "model_ema.", "quantize.embedding.cluster_size", "quantize.embedding.embed_avg"),
    whole="first_stage_model.",
    refused={
        "quantize.embed.": "the codebook of a Gumbel quantizer, which scores codes and compares no vectors",
        "quantize.used": "a table of renumbered codes, which the tokens of its transformer are",
    },
)
"""CompVis' taming-transformers and latent-diffusion, whose tokenizer is the first stage of a whole model."""

LLAMAGEN = Dialect(
    _parts("conv_blocks.{L}", "conv_blocks.{R}", "res", ("0", "1", "2")), ignored=(*_TRAINING, "quantize.codebook_used")
)

JANUS = Dialect(_parts("down.{L}", "up.{R}", "block", ("block_1", "attn_1", "block_2")), ignored=_TRAINING)
"""What transformers calls the tensors of Janus' tokenizer, which is LlamaGen's."""

_VAR = replace(TAMING, qkv=("qkv",), ignored=(*_TRAINING, "quantize.ema_vocab_hit_SV"), whole="", refused={})
VAR = tuple(
    replace(_VAR, parts={**_VAR.parts, ours: f"quantize.quant_resi.{theirs}"})
    for ours, theirs in (
        ("quantize.phi.{N}.", "qresi_ls.{N}."),
        ("quantize.phi.{N}.", "{N}."),
        ("quantize.phi.0.", "qresi."),
    )
)
"""VAR, by how the scales share their convolutions: some of them, none, all."""
