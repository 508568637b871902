"""The float32 arithmetic of the process, shared among threads."""

import threading
from collections.abc import Iterator

import pytest
import torch

from pipeline.models.arithmetic import Arithmetic, float32_arithmetic


@pytest.fixture(autouse=True)
def settings_of_torch() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.cudnn.allow_tf32 = True


def settings() -> list[str]:
    backends = torch.backends
    ops = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    return [op.fp32_precision for op in ops]


@pytest.mark.parametrize("arithmetic", ["ieee", "tf32"])
def test_settings_come_back_after_an_error(arithmetic: Arithmetic) -> None:
    torch.set_float32_matmul_precision("medium")
    before = settings()
    with pytest.raises(ZeroDivisionError), float32_arithmetic(arithmetic):
        inside = settings()
        _ = 1 / 0
    assert set(inside) <= {"ieee", "none"} if arithmetic == "ieee" else inside[:2] == ["tf32", "tf32"]
    assert settings() == before


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("arithmetic", ["ieee", "tf32"])
def test_the_older_settings_agree_inside(arithmetic: Arithmetic, before: str, convolutions: bool) -> None:
    """torch raises where they do not, and its compiler reads them."""
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = convolutions
    outside = [*settings(), *older_settings()]
    with float32_arithmetic(arithmetic):
        assert [*older_settings()][:2] == [arithmetic == "tf32"] * 2
        assert set(settings()[2:]) <= {"none", "ieee"} or arithmetic == "tf32"
        assert settings()[2:] == outside[2:4] or arithmetic == "ieee"
    assert [*settings(), *older_settings()] == outside


def older_settings() -> tuple[bool, bool, str]:
    backends = torch.backends
    return backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()


def test_settings_that_contradict_each_other_are_left_alone() -> None:
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # while `allow_tf32` still says otherwise
    with pytest.raises(RuntimeError):
        older_settings()
    before = settings()
    with float32_arithmetic("ieee"):
        assert set(settings()) <= {"ieee", "none"}
    assert settings() == before
    with pytest.raises(RuntimeError):
        older_settings()


class Inside:
    """A thread that is in until told to leave."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.entered, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(arithmetic,))
        self._thread.start()

    def _run(self, arithmetic: Arithmetic) -> None:
        with float32_arithmetic(arithmetic):
            self.entered.set()
            self._leave.wait(10)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join()


def test_threads_that_want_the_same_go_in_together_and_the_last_one_restores() -> None:
    torch.set_float32_matmul_precision("medium")
    before = settings()
    first, second = Inside("ieee"), Inside("ieee")
    assert first.entered.wait(10)
    assert second.entered.wait(10)
    first.leave()
    assert set(settings()) <= {"ieee", "none"}
    second.leave()
    assert settings() == before


def test_a_thread_that_wants_the_other_waits() -> None:
    with float32_arithmetic("ieee"), float32_arithmetic("ieee"):
        other = Inside("tf32")
        assert not other.entered.wait(0.1)
    assert other.entered.wait(10)
    assert settings()[:2] == ["tf32", "tf32"]
    other.leave()
