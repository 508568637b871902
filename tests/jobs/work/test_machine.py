"""The threads of a process: as many as it has cores, and all of them busy."""

import itertools
import threading
from collections.abc import Callable
from threading import get_ident
from typing import Any

import pytest
import torch
from fixtures_store import Job
from shard_work import ListQueue, encode_with, work_of

from pipeline.jobs.work import machine, shard
from pipeline.jobs.work.lanes import tokenize_all
from pipeline.jobs.work.stages import Stage
from pipeline.models.batch_encoder import BatchEncoder
from pipeline.source import batches, filling
from pipeline.source.find import find_source_shards
from pipeline.source.images.canvas import Canvas

pytest_plugins = ["fixtures_store"]


def test_batches_smaller_than_the_machine_occupy_all_cores(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one piece for one thread; six threads meet, or none goes on."""
    config = job.config("source.exclude=[more/*]", "tokenize.batch_size=1")
    meeting, encoded = threading.Barrier(6, timeout=20), itertools.count()
    with work_of(config, 6, torch.device("cpu")) as work:
        encode_with(monkeypatch, lambda: next(encoded) < 6 and meeting.wait())
        assert not tokenize_all(ListQueue(find_source_shards(config.source)), work).failures


def test_every_thread_that_touches_the_device_has_made_it_its_own(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins at GPU 0. The tokenizer stays on the CPU; the encoder's own threads have a test of theirs."""
    chosen = dict[int, list[torch.device]]()
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.setdefault(get_ident(), []).append(device))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "pretended")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)

    class OnCpu(BatchEncoder):
        def __init__(self, tokenizer: Any, device: torch.device, cores: int, compiles: bool = False) -> None:
            super().__init__(tokenizer, torch.device("cpu"), cores)
            self.on_cpu = False

    monkeypatch.setattr(machine, "BatchEncoder", OnCpu)
    pinned = list[bool]()

    def unpinned(count: int, size: tuple[int, int], pin: bool) -> Canvas:
        pinned.append(pin)
        return Canvas(count, size)

    monkeypatch.setattr(filling, "Canvas", unpinned)
    seen: dict[str, set[int]] = {}

    def watch(where: Any, name: str, what: str) -> None:
        function = getattr(where, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            seen.setdefault(what, set()).add(get_ident())
            return function(*arguments, **options)

        monkeypatch.setattr(where, name, watched)

    watch(batches, "prepare_samples", "decode")
    watch(filling, "Canvas", "pin")
    watch(Canvas, "filled", "stack")
    watch(BatchEncoder, "submit", "submit")
    watch(shard, "_tokens_of", "fetch")
    config = job.config("tokenize.batch_size=2", "tokenize.decode_workers=2")
    with work_of(config, device=torch.device("cuda", 5)) as work:
        seen.clear()
        assert not tokenize_all(ListQueue(find_source_shards(config.source)), work).failures
    assert seen.keys() == {"decode", "pin", "stack", "submit", "fetch"}
    for what, threads in seen.items():
        assert threads <= chosen.keys(), what
    assert all(pinned)
    assert {device for devices in chosen.values() for device in devices} == {torch.device("cuda", 5)}


def test_convolutions_are_repeatable_meanwhile(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn: Any = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)
    with work_of(job.config()):
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
    assert (cudnn.deterministic, cudnn.benchmark) == (False, True)


@pytest.mark.parametrize(("workers", "threads"), [("auto", 3), ("1", 4)])
def test_no_more_threads_than_cores_unless_asked_for(
    workers: str, threads: int, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = job.config("tokenize.batch_size=2", f"tokenize.decode_workers={workers}")
    timed, decoding, encoding = Stage.timed, set[int](), set[int]()

    def tell(stage: Stage, function: Callable[..., object]) -> Callable[..., object]:
        def told(samples: object) -> object:
            decoding.add(threading.get_ident())
            return function(samples)

        return timed(stage, told)

    monkeypatch.setattr(Stage, "timed", tell)
    with work_of(config, 3, torch.device("cpu")) as work:
        encode_with(monkeypatch, lambda: encoding.add(threading.get_ident()))
        assert not tokenize_all(ListQueue(find_source_shards(config.source)), work).failures
        assert work.machine.threads["decode"] == (3 if workers == "auto" else 1)
    assert len(decoding | encoding) <= threads
    assert bool(decoding & encoding) == (workers == "auto")
