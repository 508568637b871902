"""How long, how often and how hastily requests are repeated."""

import random
import time
from collections.abc import Callable
from itertools import cycle, islice, pairwise, product, repeat

import pytest
from fixtures_s3 import S3, SLOW_DOWN, Faults, Proxy

from pipeline.files.connection import growing_pauses
from pipeline.files.objects import ObjectFiles
from pipeline.storage import Storage

pytest_plugins = ["fixtures_s3"]


@pytest.fixture
def patient(proxy: Proxy, s3: S3, bucket_url: str) -> Callable[[float], ObjectFiles]:
    """The same place through the proxy, with another patience."""
    endpoint = proxy.s3.environment["AWS_ENDPOINT_URL"]
    return lambda seconds: ObjectFiles(bucket_url, Storage(endpoint=endpoint, patience_s=seconds))


def test_pauses_grow_to_a_bound_and_are_drawn_from_all_below_it() -> None:
    many = [list(islice(growing_pauses(random.Random(seed)), 12)) for seed in range(300)]
    means = [sum(pauses[step] for pauses in many) / len(many) for step in range(12)]
    bounds = [min(0.1 * 2**step, 15) for step in range(12)]
    assert means == pytest.approx([bound / 2 for bound in bounds], rel=0.15)
    assert all(max(pauses[step] for pauses in many) <= bound for step, bound in enumerate(bounds))
    assert min(pauses[8] for pauses in many) < 1  # full jitter: some come soon


REQUESTS: dict[str, Callable[[ObjectFiles], object]] = {
    "GET": lambda files: files.read("a"),
    "PUT": lambda files: files.put("a", b"1"),
    "PUT new": lambda files: files.put_if_absent("a", b"1"),
    "HEAD": lambda files: files.stat("a"),
    "LIST": lambda files: files.stats(""),
    "DELETE": lambda files: files.delete_folder(""),
}


@pytest.mark.parametrize(
    ("request_", "fault", "end"),
    [
        *zip(REQUESTS, cycle(["refuse", "reset"]), repeat({"at_most": 3})),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in product(REQUESTS, ["refuse", "reset"], [{"for_s": 1.0}])
        ),
    ],
)
def test_an_outage_is_waited_for(
    patient: Callable[[float], ObjectFiles], proxy: Proxy, request_: str, fault: str, end: dict[str, float]
) -> None:
    files = patient(30)
    files.put("a", b"1")
    proxy.faults = Faults(**{fault: 1.0, "answer": SLOW_DOWN, **end})
    before = len(proxy.asked)
    REQUESTS[request_](files)
    assert proxy.faults.happened[fault] >= 2
    assert len(proxy.asked) - before <= 16


def test_patience_ends_and_few_requests_are_made_of_it(patient: Callable[[float], ObjectFiles], proxy: Proxy) -> None:
    for name in ("GET", "PUT new", "LIST"):
        proxy.faults = Faults(refuse=1.0, answer=SLOW_DOWN)
        before, started = len(proxy.asked), time.monotonic()
        with pytest.raises(OSError, match="503 SlowDown"):
            REQUESTS[name](patient(1.5))
        assert 0.2 < time.monotonic() - started < 4
        assert 2 <= len(proxy.asked) - before <= 14, name
        moments = [asked.at for asked in proxy.asked[before:]]
        assert max(later - earlier for earlier, later in pairwise(moments)) > 0.1


def test_an_answer_that_never_comes_is_not_waited_for_for_ever(
    patient: Callable[[float], ObjectFiles], proxy: Proxy
) -> None:
    proxy.faults = Faults(latency_s=5)
    started = time.monotonic()
    with pytest.raises(OSError, match="no answer"):
        patient(0.5).read("a")
    assert time.monotonic() - started < 3


def test_what_is_created_is_told_from_what_was_there(patient: Callable[[float], ObjectFiles], proxy: Proxy) -> None:
    files = patient(20)
    proxy.faults = Faults(forget=1.0, method="PUT", at_most=2)  # each time it is written, and nobody says so
    assert files.put_if_absent("new", b"ours")
    assert not files.put_if_absent("new", b"theirs")
    conflict = (409, "ConditionalRequestConflict", "Somebody else is writing.")
    proxy.faults = Faults(refuse=1.0, answer=conflict, method="PUT", at_most=3)
    assert files.put_if_absent("newer", b"ours")
    assert files.read("newer") == b"ours"


def test_a_list_of_many_pages_is_not_begun_anew_for_one(
    patient: Callable[[float], ObjectFiles], proxy: Proxy, s3: S3
) -> None:
    files = patient(30)
    for number in range(8):
        files.put(f"many/{number:04d}", b"")
    proxy.faults = Faults(refuse=1.0, operation="ListObjects", at_most=2)
    assert len(files.stats("many")) == 8
