"""Which stage bounds a run, and what to change. Pure: no files, no clock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

# A stage that is busy for a smaller share of the time is waiting for another one.
_BUSY = 0.7
# With a smaller share of the CPU time idle, more processes would not help.
_IDLE = 0.25
# Shares over a shorter time may be chance, and in so short a run nothing is gained by advice.
_TELLING_SECONDS = 10.0

_STAGES = ("read", "decode", "encode", "write")
_PACK = "pack more images into a source shard"


@dataclass(frozen=True)
class Load:
    """What the stages of one source shard did. The fields are those of CommitRecord."""

    seconds: Mapping[str, float]
    threads: Mapping[str, int]
    on_cpu: bool
    """Whether the encoder ran on the CPU cores that also decode."""
    bf16_helps: bool = False
    """Whether the device is known to encode faster in bfloat16 than as it did."""
    gpu_decodes: bool = False
    """Whether images are decoded by a GPU, for which the threads of the decoder wait: that is work of theirs."""


@dataclass(frozen=True)
class Bounds:
    """How busy the stages were."""

    busy: dict[str, float]
    """By stage, the share of the time in which its threads worked; where decoder and encoder share the CPU cores,
    their shares of those."""
    stage: str | None
    """The one that bounds the run; None where all of them wait for something else."""
    remedy: str
    """What would make the run faster; nothing where that cannot be told."""

    def __str__(self) -> str:
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in self.busy.items())
        remedy = f"; {self.remedy}" if self.remedy else ""
        if self.stage is None:
            return f"no stage is busy all the time ({shares}){remedy}"
        return f"{self.stage} bounds ({shares} busy){remedy}"


def in_all(loads: Sequence[Load]) -> tuple[Load, ...]:
    """The loads of one process as one; none where there are none."""
    if not loads:
        return ()
    seconds: dict[str, float] = {}
    for load in loads:
        for stage, spent in load.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    return (replace(loads[0], seconds=seconds),)


def find_bounds(loads: Iterable[Load], idle: float | None = None, *, seconds: float | None = None) -> Bounds | None:
    """What bounded the making of some parts; None where their commits do not tell.

    Args:
        loads: of one source shard each, or of one process each.
        idle: share of the CPU time that nobody used; None where that is unknown.
        seconds: how long anybody was at work; by default that of the longest of `loads`, for processes work side by
            side.
    """
    loads = list(loads)
    busy, able = dict.fromkeys(_STAGES, 0.0), dict.fromkeys(_STAGES, 0.0)
    for load in loads:
        wall_s = load.seconds.get("wall", 0.0)
        for stage in busy:
            shared = load.on_cpu and stage in ("decode", "encode")
            busy[stage] += load.seconds.get(stage, 0.0)
            able[stage] += wall_s * load.threads.get("cores" if shared else stage, 0)
    if not all(able.values()):
        return None
    on_cpu = all(load.on_cpu for load in loads)
    shares = {stage: min(busy[stage] / able[stage], 1.0) for stage in busy}
    most: str | None = max(shares, key=lambda stage: shares[stage])
    full = shares["decode"] + shares["encode"] if on_cpu and most in ("decode", "encode") else max(shares.values())
    if full < _BUSY:
        most = None
    if seconds is None:
        seconds = max(load.seconds.get("wall", 0.0) for load in loads)
    bf16, gpu_decodes = all(load.bf16_helps for load in loads), all(load.gpu_decodes for load in loads)
    remedy = _remedy(most, on_cpu, bf16, gpu_decodes, idle) if seconds >= _TELLING_SECONDS else ""
    return Bounds(shares, most, remedy)


def _remedy(stage: str | None, on_cpu: bool, bf16: bool, gpu_decodes: bool, idle: float | None) -> str:
    """What would help when a stage bounds, or none does."""
    more = "start more processes" if idle is not None else "start more processes where CPU cores are idle"
    idle_cores = idle is None or idle >= _IDLE
    faster = ["set tokenize.precision=bf16"] if bf16 else []
    if stage == "read":
        return _any_of("read the source from faster storage", *[more] * idle_cores)
    if stage == "decode" and gpu_decodes:
        return _any_of("start processes on more GPUs", "set image.decoder=torchvision where CPU cores are idle")
    if stage == "decode":
        turbo = "set image.decoder=turbojpeg for images much larger than image.size"
        return _any_of("add CPU cores", turbo if on_cpu else "set image.decoder=nvjpeg")
    if stage == "encode":
        return _any_of(*["use a GPU", "add CPU cores"] if on_cpu else ["start processes on more GPUs"], *faster)
    if stage == "write":
        return _any_of("put the store on faster storage", _PACK)
    return _any_of(more, _PACK) if idle_cores else "all CPU cores are in use"


def _any_of(*remedies: str) -> str:
    *others, last = remedies
    return f"{', '.join(others)}{',' if len(others) > 1 else ''} or {last}" if others else last
