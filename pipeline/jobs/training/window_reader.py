"""Reading the samples of windows: in threads, and one window ahead of its use."""

import itertools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pipeline.config import SourceConfig
from pipeline.errors import BadSample
from pipeline.jobs.training.collection import Collection
from pipeline.jobs.training.order import Numbers, Window
from pipeline.records import SourceShard
from pipeline.source.containers.container import Read, ShardIndex
from pipeline.source.reading import Opener, plan_reads, read_samples_at
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection

_THREADS = 8


class Drawn(NamedTuple):
    """A sample, as it was drawn."""

    image: bytes | None
    """The encoded image; None for a sample without one."""
    mirrored: bool


class WindowReader:
    """Reads what one process takes of each window. Close it: it may have commands running."""

    def __init__(self, collection: Collection, source: SourceConfig) -> None:
        self._collection = collection
        self._source = source
        self._threads = ThreadPoolExecutor(_THREADS, "read")
        self._streams: dict[int, _ForwardReader] = {}
        self._lock = threading.Lock()
        """Held while streams are added and taken away: threads do so, and another one closes."""
        self._closed = False

    def read(self, windows: Iterable[Window], share: Callable[[Window], Numbers]) -> Generator[list[Drawn], None, None]:
        """The samples that `share` names of each window, in its order.

        While one window is in use, the next one is read. Raises SourceError.
        """
        ahead: tuple[Window, Numbers, list[Future[list[Sample]]]] | None = None
        for window in windows:
            # First: a command is read forward, and so window after window.
            drawn = self._drawn(*ahead) if ahead else None
            taken = share(window)
            ahead = window, taken, list(self._submit(window, taken))
            if drawn is not None:
                yield drawn
        if ahead:
            yield self._drawn(*ahead)

    def close(self) -> None:
        """Stop reading, and what is being read from."""
        with self._lock:
            self._closed = True  # from now on no command is started that nobody would stop
            streams = list(self._streams.values())
        for stream in streams:
            stream.stop()
        self._threads.shutdown(cancel_futures=True)
        for stream in streams:
            stream.close()

    def _submit(self, window: Window, taken: Numbers) -> Iterator[Future[list[Sample]]]:
        """Reads by rising number of the source shard, and in each by rising number of the sample."""
        for shard in np.unique(window.shards):
            here = window.shards == shard
            samples = np.sort(window.samples[taken][here[taken]])
            index = self._collection.indexes[shard]
            assert index is not None
            if index.starts is None:
                yield self._threads.submit(self._read_on, int(shard), samples, int(window.samples[here].max()))
                continue
            for read in plan_reads(self._collection.shards[shard], index, samples):
                yield self._threads.submit(self._read_at, int(shard), index, read)

    def _drawn(self, window: Window, taken: Numbers, reads: list[Future[list[Sample]]]) -> list[Drawn]:
        selection = Selection(self._source)
        images = [_image(sample, selection) for read in reads for sample in read.result()]
        # Samples come back sorted; `place[i]` is where the sample that is drawn as number i stands among them.
        place = np.argsort(np.lexsort((window.samples[taken], window.shards[taken])))
        mirrored = window.mirrored[taken]
        return [Drawn(images[i], bool(mirror)) for i, mirror in zip(place, mirrored, strict=True)]

    def _read_at(self, shard: int, index: ShardIndex, read: Read) -> list[Sample]:
        return read_samples_at(self._collection.shards[shard], self._source, index, read)

    def _read_on(self, shard: int, samples: Numbers, last: int) -> list[Sample]:
        """Samples of a source shard that is read forward, and up to sample `last`: the next window begins behind it."""
        index = self._collection.indexes[shard]
        assert index is not None
        first = int(samples[0]) if len(samples) else last
        stream = self._stream_at(shard, index, first)
        if stream is None:
            return []
        wanted = {int(sample) for sample in samples}
        found = [sample for sample in stream.up_to(last) if sample.index in wanted]
        if stream.next == index.samples:
            # Reading to the very end shows whether the command failed, and lets go of it.
            stream.finish()
            with self._lock:
                del self._streams[shard]
        return found

    def _stream_at(self, shard: int, index: ShardIndex, first: int) -> "_ForwardReader | None":
        """What reads a source shard forward, and has not passed sample `first`; None when nobody waits any more."""
        with self._lock:
            if self._closed:
                return None
            stream = self._streams.get(shard)
            if stream is None or stream.next > first:
                stream = self._streams[shard] = _ForwardReader(
                    self._collection.shards[shard], self._source, index, first
                )
            return stream


class _ForwardReader:
    """A source shard that is being read forward."""

    def __init__(self, shard: SourceShard, source: SourceConfig, index: ShardIndex, first: int) -> None:
        self._opener = Opener(source)
        self._samples = self._opener.read_on(shard, index, first)
        self.next = first
        """Number of the sample that comes next."""

    def up_to(self, last: int) -> Iterator[Sample]:
        """The samples from the next one to number `last`."""
        for sample in itertools.islice(self._samples, max(0, last + 1 - self.next)):
            self.next = sample.index + 1
            yield sample

    def finish(self) -> None:
        """Read to the end, behind the last sample. Raises SourceError."""
        for _ in self._samples:
            pass

    def stop(self) -> None:
        """End a wait of another thread for the next sample."""
        self._opener.stop()

    def close(self) -> None:
        """Let go of what is being read."""
        self._samples.close()


def _image(sample: Sample, selection: Selection) -> bytes | None:
    try:
        return selection.image(sample)
    except BadSample:
        return None
