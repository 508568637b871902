"""Hostile tars: each gives the samples it should or is refused with a reason, in bounded memory, and in time that grows
with its size."""

import contextlib
import functools
import io
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_tars import FAMILIES, LIMITS, Case, cases, header, member, padded, pax, record, tar, valid_tars
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError, VqtokError
from pipeline.files import LocalFiles
from pipeline.source.containers.tar import compression
from pipeline.source.containers.tar.reader import TarReader
from pipeline.source.containers.tar.strict import StrictTar
from pipeline.source.images.headers import check_header
from pipeline.source.sample import Sample

FUZZ_EXAMPLES = int(os.environ.get("VQTOK_FUZZ_EXAMPLES", "100"))
"""For each kind of tar."""
PEAK_BYTES = 16 << 20
"""What reading a case may take: some pieces of a file, what LIMITS allow and the window of xz; they claim gigabytes."""


@functools.cache
def all_cases() -> dict[str, Case]:
    return {case.name: case for case in cases()}


@pytest.fixture(autouse=True)
def small_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_FREE_BYTES", 1 << 18)


def samples_of(path: Path) -> list[Sample]:
    """Read from front to back; where one jumps in the file, it must be the same."""
    readers = [
        TarReader(LocalFiles(path.parent), path.name, digests=digests, limits=LIMITS) for digests in (True, False)
    ]
    found, *again = [outcome(reader) for reader in readers]
    assert again == [found]
    if isinstance(found, str):
        raise SourceError(found)
    return found


def outcome(reader: TarReader) -> list[Sample] | str:
    try:
        return list(reader)
    except SourceError as error:
        return str(error)


def complaint(case: Case, path: Path) -> str:
    """What is wrong with what comes of a case, or nothing."""
    path.write_bytes(case.data)
    tracemalloc.start()
    try:
        found = samples_of(path)
    except SourceError as error:
        if case.keys is not None:
            return f"refused: {error}"
        return "" if case.problem in str(error) and str(error).isprintable() else f"refused otherwise: {error!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > PEAK_BYTES:
            return f"{peak:,} bytes of memory"  # noqa: B012
    if case.keys is None:
        return "not refused"
    keys = tuple(sample.key for sample in found)
    if keys != case.keys:
        return f"other keys: {keys!r}"
    problems = [problem for sample in found for problem in sample.problems]
    return "" if not case.problem or case.problem in problems[-1] else f"other problems: {problems}"


def test_there_are_cases_of_all_kinds() -> None:
    assert len(all_cases()) == len(cases()) >= 300
    assert {name.partition(":")[0] for name in all_cases()} == {family.__name__ for family in FAMILIES}
    assert [case.data for case in cases()] == [case.data for case in all_cases().values()]  # the same every time


def test_each_case_comes_to_what_it_must(tmp_path: Path) -> None:
    complaints = {case.name: complaint(case, tmp_path / "case.tar") for case in all_cases().values()}
    assert not {name: found for name, found in complaints.items() if found}


@pytest.mark.slow
@settings(max_examples=FUZZ_EXAMPLES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("kind", range(len(valid_tars())))
def test_mutated_tars_are_read_or_refused(kind: int, tmp_path: Path, data: st.DataObject) -> None:
    file = bytearray(valid_tars()[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(file) - 1))
        file[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        if not file:
            break
    path = tmp_path / "mutated.tar"
    path.write_bytes(file)
    try:
        samples_of(path)
    except SourceError as error:
        assert str(error).isprintable()


# --- time that grows with the size ------------------------------------------------------------------------

FLOOR_SECONDS = 0.2
"""A step that is shorter is quick, whatever it is compared with."""


def of_pax_records(size: int) -> Callable[[], object]:
    data = tar(pax(b"5 k=\n" * (size // 5)), member("a.jpg"))
    limits = LIMITS._replace(header_bytes=2 * size)
    return lambda: list(StrictTar(io.BytesIO(data), "x.tar", limits=limits))


def of_zeros_behind_pax_records(size: int) -> Callable[[], object]:
    data = tar(pax(record(b"a", b"b") * (size // 100) + bytes(size)), member("a.jpg"))
    limits = LIMITS._replace(header_bytes=2 * size)
    return lambda: list(StrictTar(io.BytesIO(data), "x.tar", limits=limits))


def of_fill_bytes(size: int) -> Callable[[], object]:
    """A JPEG of many fill bytes that no marker follows, and many scans."""
    data = b"\xff\xd8" + b"\xff" * size + b"\0" + b"\xff\xda" * 141
    return lambda: check_header(data, 1)


def of_many_fill_bytes(size: int) -> Callable[[], object]:
    data = b"\xff\xd8" + (b"\xff" * 100 + b"\0") * (size // 101) + b"\xff\xda" * 141
    return lambda: check_header(data, 1)


def of_links(size: int) -> Callable[[], object]:
    data = tar(*(size // 512) * [header(b"a", 0, b"2")], padded(member("b.jpg")))
    return lambda: list(StrictTar(io.BytesIO(data), "x.tar"))


def seconds(step: Callable[[], object]) -> float:
    """Of the quickest of three: the cores are shared."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(VqtokError):
            step()
        taken.append(time.process_time() - started)
        if taken[-1] < FLOOR_SECONDS:
            break
    return min(taken)


@pytest.mark.parametrize(
    "step",
    [of_pax_records, of_zeros_behind_pax_records, of_fill_bytes, of_many_fill_bytes, of_links],
    ids=lambda step: step.__name__,
)
def test_time_grows_with_the_size(step: Callable[[int], Callable[[], object]]) -> None:
    small, large = seconds(step(50_000)), seconds(step(200_000))
    assert large < max(FLOOR_SECONDS, 8 * small)
