"""Which stage bounds a run, and what to change. Pure: no files, no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A stage that is busy for less of the time waits for something else.
_BUSY = 0.7

_REMEDIES = {
    "read": "read the source from faster storage, or start more processes",
    "decode": "add CPU cores, or set image.decoder=nvjpeg",
    "encode": "set tokenize.precision=bf16, or start processes on more GPUs",
    "write": "put the store on faster storage, or pack more images into a source shard",
}
_ON_CPU = {
    **_REMEDIES,
    "decode": "add CPU cores, or set image.decoder=turbojpeg for images much larger than image.size",
    "encode": "use a GPU, add CPU cores, or set tokenize.precision=bf16 where the CPU has it",
}


@dataclass(frozen=True)
class Load:
    """What the stages of one source shard did. The fields are those of CommitRecord."""

    seconds: Mapping[str, float]
    threads: Mapping[str, int]
    on_cpu: bool
    """Whether the encoder ran on CPU cores, those that decode."""


@dataclass(frozen=True)
class Bounds:
    """How busy the stages were."""

    busy: dict[str, float]
    """By stage, the share of the time in which its threads worked; where decoder and encoder share the CPU cores,
    their shares of those."""
    stage: str | None
    """The one that bounds the run; None where all of them wait for something else."""
    remedy: str
    """What would make the run faster."""

    def __str__(self) -> str:
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in self.busy.items())
        if self.stage is None:
            return f"no stage is busy all the time ({shares}); {self.remedy}"
        return f"{self.stage} bounds ({shares} busy); {self.remedy}"


def find_bounds(loads: Iterable[Load]) -> Bounds | None:
    """What bounded the making of some parts; None where their commits do not tell."""
    busy = dict.fromkeys(_REMEDIES, 0.0)
    able = dict.fromkeys(_REMEDIES, 0.0)
    on_cpu = True
    for load in loads:
        wall_s = load.seconds.get("wall", 0.0)
        on_cpu = on_cpu and load.on_cpu
        for stage in busy:
            shared = load.on_cpu and stage in ("decode", "encode")
            busy[stage] += load.seconds.get(stage, 0.0)
            able[stage] += wall_s * load.threads.get("cores" if shared else stage, 0)
    if not all(able.values()):
        return None
    shares = {stage: min(busy[stage] / able[stage], 1.0) for stage in busy}
    remedies = _ON_CPU if on_cpu else _REMEDIES
    most = max(shares, key=lambda stage: shares[stage])
    full = shares[most]
    if on_cpu and most in ("decode", "encode"):
        full = shares["decode"] + shares["encode"]
    if full < _BUSY:
        return Bounds(shares, None, "start more processes, or pack more images into a source shard")
    return Bounds(shares, most, remedies[most])
