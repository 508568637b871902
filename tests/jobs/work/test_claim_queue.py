"""What hands out source shards: all of them once, and how many calls that takes as processes become more."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from support import run_python

from pipeline.claims import Claim, Claims, claimed_parts
from pipeline.files import LocalFiles
from pipeline.jobs.work import claim_queue as module
from pipeline.jobs.work.claim_queue import ClaimQueue
from pipeline.records import SourceShard
from pipeline.store.schema.commits import committed_parts
from pipeline.store.schema.failures import read_failures

FOREVER_S = 600.0
METHODS = ("list", "stat", "stats", "read", "put_if_absent", "delete")


class CountingFiles(LocalFiles):
    """A folder that counts how often it is asked for what. Heartbeats are left out: time makes them, not work."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.calls: Counter[str] = Counter()


def _counted(name: str) -> Callable[..., Any]:
    method = getattr(LocalFiles, name)

    def counted(self: CountingFiles, *arguments: Any, **options: Any) -> Any:
        if threading.current_thread().name != "heartbeat":
            self.calls[name] += 1
        return method(self, *arguments, **options)

    return counted


for _name in METHODS:
    setattr(CountingFiles, _name, _counted(_name))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.05)


def source_shards(count: int) -> list[SourceShard]:
    return [
        SourceShard(path=f"{number}.tar", base="/", part=f"part-{number:04d}", bytes=1, version="")
        for number in range(count)
    ]


def queue_of(
    files: LocalFiles,
    claims: Claims,
    shards: list[SourceShard],
    begin: float = 0.0,
    seed: int = 0,
    wait: bool = False,
) -> ClaimQueue:
    return ClaimQueue(files, claims, shards, committed_parts(files), begin, random.Random(seed), wait)


def commit(files: LocalFiles, claims: Claims, shard: SourceShard) -> None:
    assert files.put_if_absent(f"commits/{shard.part}.json", b"{}", durable=False), "done twice"
    claims.release(shard.part)


class Crowd:
    """So many workers, each with claims of its own, over one folder; what each did, and all their calls."""

    def __init__(self, folder: Path, shards: list[SourceShard], begins: list[float], seconds_each: float) -> None:
        self._files = [CountingFiles(folder) for _ in begins]
        self._shards, self._seconds_each = shards, seconds_each
        self._begun = threading.Barrier(len(begins))
        self.done: list[list[str]] = [[] for _ in begins]
        threads = [threading.Thread(target=self._work, args=(rank, begin)) for rank, begin in enumerate(begins)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.calls: Counter[str] = sum((files.calls for files in self._files), Counter())

    def _work(self, rank: int, begin: float) -> None:
        files, draw = self._files[rank], random.Random(rank)
        with Claims(files, FOREVER_S) as claims:
            queue = queue_of(files, claims, self._shards, begin, rank, wait=True)
            self._begun.wait()
            while (shard := queue.next()) is not None:
                time.sleep(2 * draw.random() * self._seconds_each)
                commit(files, claims, shard)
                self.done[rank].append(shard.part)


@pytest.mark.parametrize("begins", [[rank / 8 for rank in range(8)], [0.0] * 8], ids=["ranks", "all at the same place"])
def test_eight_processes_ask_hardly_more_for_each_source_shard_than_one(tmp_path: Path, begins: list[float]) -> None:
    shards = source_shards(400)
    alone = Crowd(tmp_path / "alone", shards, [0.0], 0.0)
    crowd = Crowd(tmp_path / "crowd", shards, begins, 0.004)
    for done in (alone.done, crowd.done):
        assert sorted(part for parts in done for part in parts) == [shard.part for shard in shards]
    assert min(len(parts) for parts in crowd.done) > 10  # all had their share of the work
    assert alone.calls.total() <= 4.1 * len(shards)  # claim, commit, look for a commit, release
    assert crowd.calls.total() <= 1.3 * alone.calls.total(), crowd.calls
    assert crowd.calls["put_if_absent"] <= 1.1 * alone.calls["put_if_absent"], crowd.calls


def test_more_processes_than_source_shards(tmp_path: Path) -> None:
    shards = source_shards(3)
    crowd = Crowd(tmp_path, shards, [rank / 12 for rank in range(12)], 0.01)
    assert sorted(part for parts in crowd.done for part in parts) == [shard.part for shard in shards]


def test_one_process_goes_in_order_from_its_place_on_over_what_is_pending(tmp_path: Path) -> None:
    files, shards = LocalFiles(tmp_path), source_shards(8)
    with Claims(files, FOREVER_S) as claims:
        for number in (0, 5, 6):
            commit(files, claims, shards[number])
        queue = queue_of(files, claims, shards, begin=0.4)  # of the pending 1, 2, 3, 4, 7
        order = [part_number(shard) for shard in worked_off(files, claims, queue)]
        assert order == [3, 4, 7, 1, 2]
        assert queue.is_over


def worked_off(files: LocalFiles, claims: Claims, queue: ClaimQueue) -> Iterator[SourceShard]:
    """Everything that can be had, each committed."""
    while (shard := queue.next()) is not None:
        commit(files, claims, shard)
        yield shard


def part_number(shard: SourceShard) -> int:
    return int(shard.part[-4:])


def test_a_stretch_before_another_process_is_shared_and_none_of_its_claims_tried(tmp_path: Path) -> None:
    """It works at 2, and so will want 3: nobody who begins later takes that first."""
    shards = source_shards(40)
    with Claims(LocalFiles(tmp_path), FOREVER_S) as other:
        for number in (0, 1):
            commit(LocalFiles(tmp_path), other, shards[number])
        assert other.acquire(shards[2].part)
        firsts = set()
        for seed in range(8):
            files = CountingFiles(tmp_path)
            with Claims(files, FOREVER_S) as claims:
                queue = queue_of(files, claims, shards, seed=seed)
                queue._begin = None  # as after the first walk
                got = [part_number(shard) for shard in islice(iter(queue.next, None), 4)]
                assert got == list(range(got[0], got[0] + 4)) or 39 in got
                assert files.calls["put_if_absent"] == 4
            firsts.add(got[0])
        assert len(firsts) > 4


def test_without_waiting_it_ends_where_others_are_at_work(tmp_path: Path) -> None:
    files, shards = LocalFiles(tmp_path), source_shards(5)
    with Claims(files, FOREVER_S) as other, Claims(files, FOREVER_S) as claims:
        assert other.acquire(shards[3].part)
        queue = queue_of(files, claims, shards)
        assert {part_number(shard) for shard in worked_off(files, claims, queue)} == {0, 1, 2, 4}
        assert not queue.is_over
        commit(files, other, shards[3])
        assert queue.list_commits() == {shard.part for shard in shards}
        assert queue.is_over


def test_what_was_given_back_uncommitted_is_handed_to_another_and_never_twice_to_one(tmp_path: Path) -> None:
    files, shards = LocalFiles(tmp_path), source_shards(4)
    with Claims(files, FOREVER_S) as failing, Claims(files, FOREVER_S) as claims:
        tried = []
        queue = queue_of(files, failing, shards)
        while (shard := queue.next()) is not None:
            tried.append(part_number(shard))
            if part_number(shard) == 2:
                queue.failed(shard, "it is damaged")
            else:
                commit(files, failing, shard)
        assert queue.count_committed() == 3
        assert [failure.reason for failure in read_failures(files, {shards[2].part})] == ["it is damaged"]
        assert tried == [0, 1, 2, 3]
        assert [part_number(shard) for shard in worked_off(files, claims, queue_of(files, claims, shards))] == [2]


def test_claims_of_dead_processes_are_taken_over_at_the_end_of_the_same_round(tmp_path: Path) -> None:
    files, shards = LocalFiles(tmp_path), source_shards(6)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with Claims(files, FOREVER_S) as claims:
        assert claims.acquire(shards[0].part)
        ours = Claim.model_validate_json(files.read(f"claims/{shards[0].part}.json"))
        claims.release(shards[0].part)
        for number in (1, 4):
            gone = ours.model_copy(update={"part": shards[number].part, "pid": dead.pid, "token": "x"})
            files.put(f"claims/{gone.part}.json", gone.to_json())
        queue = queue_of(files, claims, shards)
        order = [part_number(shard) for shard in worked_off(files, claims, queue)]
        assert sorted(order) == list(range(6))
        assert set(order[-2:]) == {1, 4}
        assert claimed_parts(files) == []


def test_a_claim_from_elsewhere_is_taken_over_when_it_has_stood_still_since_the_first_look(tmp_path: Path) -> None:
    files, shards = LocalFiles(tmp_path), source_shards(2)
    with Claims(files, 0.4) as claims:
        assert claims.acquire(shards[1].part)
        ours = Claim.model_validate_json(files.read(f"claims/{shards[1].part}.json"))
        claims.release(shards[1].part)
        files.put(f"claims/{shards[1].part}.json", ours.model_copy(update={"host": "elsewhere"}).to_json())
        began = time.monotonic()
        order = [part_number(shard) for shard in worked_off(files, claims, queue_of(files, claims, shards, wait=True))]
        assert order == [0, 1]
        assert time.monotonic() - began > 0.35


def test_a_wait_for_others_ends_when_the_process_is_to_stop(tmp_path: Path) -> None:
    files, shards, stopped = LocalFiles(tmp_path), source_shards(1), threading.Event()
    with Claims(files, FOREVER_S) as other, Claims(files, FOREVER_S) as claims:
        assert other.acquire(shards[0].part)
        queue = ClaimQueue(files, claims, shards, set(), 0.0, random.Random(0), stopped=stopped)
        threading.Timer(0.2, stopped.set).start()
        assert queue.next() is None
        assert not queue.is_over


def test_a_large_store_is_listed_after_as_many_tries_in_vain_as_it_has_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of ten here: a listing of 60 commits costs six requests."""
    monkeypatch.setattr(module, "_PAGE", 10)
    files, shards = CountingFiles(tmp_path), source_shards(80)
    with Claims(files, FOREVER_S) as claims:
        known = {shard.part for shard in shards[:60]}
        others_did(files, claims, shards[:78])
        queue = ClaimQueue(files, claims, shards, known, 0.0, random.Random(0), wait=False)
        files.calls.clear()
        assert {part_number(shard) for shard in worked_off(files, claims, queue)} == {78, 79}
        assert files.calls["list"] <= 6  # of commits and of claims
        assert files.calls["put_if_absent"] == 4  # two claims and two commits: a part is asked about first
        assert 6 <= files.calls["stat"] <= 12


def others_did(files: LocalFiles, claims: Claims, shards: Iterable[SourceShard]) -> None:
    for shard in shards:
        commit(files, claims, shard)


def test_handing_out_imports_neither_torch_nor_zarr() -> None:
    code = "import sys; import pipeline.jobs.work.claim_queue; print({'torch', 'zarr', 'numpy'} & sys.modules.keys())"
    assert run_python(code).strip() == "set()"
