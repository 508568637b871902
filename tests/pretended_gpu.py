"""A GPU that is pretended on the CPU, at its worst: what is queued runs late, and freed memory is used again at once.

Operations on its tensors are put into the queue of the current stream, and run when somebody waits for that stream.
Memory goes back to the stream that it was taken on as soon as the last tensor in it is dropped, as torch's caching
allocator does, and later where `record_stream` says so. Left out: streams that wait for each other, events, other GPUs.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

GPU = torch.device("cuda", 0)


class Stream:
    """What is queued, and the blocks of memory that are free in it, by size."""

    launch_blocking = False
    """As CUDA_LAUNCH_BLOCKING=1: nothing is queued."""

    made: ClassVar[list["Stream"]] = []

    def __init__(self, device: torch.device | None = None, priority: int = 0) -> None:
        self.cuda_stream = id(self)
        Stream.made.append(self)
        self.queue: list[Callable[[], object]] = []
        self.done = 0
        self.free: dict[int, list[tuple[Tensor, list[tuple[Stream, int]]]]] = {}

    def put(self, work: Callable[[], object]) -> None:
        """Queue an operation."""
        self.queue.append(work)
        if Stream.launch_blocking:
            self.synchronize()

    def synchronize(self) -> None:
        """Wait, which is when all that is queued runs."""
        queue, self.queue = self.queue, []
        for work in queue:
            work()
        self.done += len(queue)

    @classmethod
    def synchronize_all(cls, device: object = None) -> None:
        """Wait for all streams."""
        for stream in cls.made:
            stream.synchronize()

    def take(self, size: int) -> Tensor:
        """A block of memory, the one that was freed last if there is one."""
        for place, (block, readers) in reversed(list(enumerate(self.free.get(size, [])))):
            if all(reader.done >= until for reader, until in readers):
                del self.free[size][place]
                return block
        return torch.from_numpy(np.zeros(size, np.uint8))


class _Block:
    """Memory, while any tensor is in it."""

    def __init__(self, stream: Stream, size: int) -> None:
        self.memory = stream.take(size)
        self.readers: list[Stream] = []
        weakref.finalize(self, _give_back, stream, self.memory, self.readers)


def _give_back(stream: Stream, memory: Tensor, readers: Sequence[Stream]) -> None:
    until = [(reader, reader.done + len(reader.queue)) for reader in readers]
    stream.free.setdefault(len(memory), []).append((memory, until))


class GpuTensor(Tensor):
    """A tensor on it: `memory` is where the values are, or will be."""

    memory: Tensor
    block: _Block

    @staticmethod
    def of(memory: Tensor, block: _Block) -> "GpuTensor":
        made = Tensor._make_wrapper_subclass(GpuTensor, memory.shape, strides=memory.stride(), dtype=memory.dtype)
        made.memory, made.block = memory, block
        return made

    @staticmethod
    def like(found: Tensor) -> "GpuTensor":
        """One of the same shape in memory of the current stream, not filled yet."""
        block = _Block(current(), found.untyped_storage().nbytes())
        typed = block.memory.view(found.dtype)
        return GpuTensor.of(typed.as_strided(found.shape, found.stride(), found.storage_offset()), block)

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def record_stream(self, stream: Any) -> None:
        self.block.readers.append(stream)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = [value for value in (*args, *kwargs.values()) if isinstance(value, GpuTensor)]
        there, named = tree_map(_memory, args), tree_map(_memory, kwargs)
        written = [argument.name for argument in func._schema.arguments if argument.alias_info is not None]
        if func._schema.is_mutable:
            current().put(lambda: func(*there, **named))
            return kwargs["out"] if "out" in written else own[0]
        found = func(*there, **named)  # of what happens to be there; the shape is right
        if any(value.alias_info is not None for value in func._schema.returns):
            return GpuTensor.of(found, own[0].block)
        made = GpuTensor.like(found)
        memory = made.memory  # and not the tensor, which may be dropped before this runs
        current().put(lambda: memory.copy_(func(*there, **named)))
        return made


def _memory(value: Any) -> Any:
    return value.memory if isinstance(value, GpuTensor) else value


def _brought(found: Tensor) -> GpuTensor:
    """A copy from memory that is not pinned, for which the host waits."""
    made = GpuTensor.like(found)
    current().synchronize()
    made.memory.copy_(found)
    return made


class _OnGpu(TorchFunctionMode):
    """Makes tensors on the pretended GPU where one is asked for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") == "to" and args[1:] == (GPU,):
            return _brought(args[0])
        if kwargs.get("device") == GPU:
            return GpuTensor.like(func(*args, **{**kwargs, "device": "cpu"}))
        return func(*args, **kwargs)


_current = [Stream()]


def current(device: object = None) -> Stream:
    """The current stream."""
    return _current[-1]


def decode_at_once(decode: Callable[..., Any], files: Sequence[Tensor], *options: Any, **named: Any) -> list[GpuTensor]:
    """As the hardware decoder: output from the memory of the current stream, written to whatever is queued there."""
    made = []
    for pixels in decode(files, *options):
        made.append(GpuTensor.like(pixels))
        made[-1].memory.copy_(pixels)
    return made


@pytest.fixture
def default_stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """The stream of whoever chose none, on a GPU that is there for this thread alone."""

    @contextlib.contextmanager
    def chosen(stream: Stream) -> Iterator[None]:
        _current.append(stream)
        yield
        _current.pop()

    for name, value in {"Stream": Stream, "stream": chosen, "current_stream": current}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", Stream.synchronize_all)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    Stream.made.clear()
    _current[:] = [Stream()]
    with _OnGpu():
        yield _current[0]
