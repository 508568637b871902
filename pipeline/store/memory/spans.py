"""Room handed out of a range of numbers, and taken back."""

from bisect import bisect_left


class Spans:
    """Which part of a range is free.

    What came back is joined with the free room beside it. Room is searched from where the last was found, so that
    what has just come back is not handed out again at once: whoever still uses it by mistake finds nothing there.

    Args:
        start: of the range.
        stop: one beyond its end.
    """

    def __init__(self, start: int, stop: int) -> None:
        self._range = (start, stop)
        self._starts, self._stops = [start], [stop]  # of each hole, in order
        self._from = start

    @property
    def is_free(self) -> bool:
        """Whether nothing is in use."""
        return self._starts == [self._range[0]] and self._stops == [self._range[1]]

    @property
    def holes(self) -> list[tuple[int, int]]:
        """The free room: start and stop of each piece, in order; no two touch."""
        return list(zip(self._starts, self._stops, strict=True))

    def take(self, size: int, align: int = 1) -> int | None:
        """Start of `size` free numbers, a multiple of `align`; None where no hole is large enough."""
        first = bisect_left(self._starts, self._from)
        for hole in (*range(first, len(self._starts)), *range(first)):
            start: int = -(-self._starts[hole] // align) * align
            if start + size <= self._stops[hole]:
                self._cut(hole, start, start + size)
                self._from = start + size
                return start
        return None

    def give_back(self, start: int, size: int) -> None:
        """Free what `take` handed out, or a part of it."""
        stop = start + size
        hole = bisect_left(self._starts, start)
        assert not hole or self._stops[hole - 1] <= start, "given back twice"
        assert hole == len(self._starts) or stop <= self._starts[hole], "given back twice"
        if hole < len(self._starts) and self._starts[hole] == stop:
            stop = self._stops[hole]
            del self._starts[hole], self._stops[hole]
        if hole and self._stops[hole - 1] == start:
            self._stops[hole - 1] = stop
        else:
            self._starts.insert(hole, start)
            self._stops.insert(hole, stop)

    def _cut(self, hole: int, start: int, stop: int) -> None:
        """Take a piece out of a hole."""
        left = [(a, b) for a, b in ((self._starts[hole], start), (stop, self._stops[hole])) if a < b]
        self._starts[hole : hole + 1] = [a for a, _ in left]
        self._stops[hole : hole + 1] = [b for _, b in left]
