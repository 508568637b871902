"""What is read of a file is counted and hashed, however it is asked for."""

import hashlib
import io

from hypothesis import given
from hypothesis import strategies as st

from pipeline.source.shards.identity import HEAD_BYTES
from pipeline.source.shards.raw import PIECE_BYTES, RawStream

DATA = hashlib.shake_128(b"x").digest(2 * PIECE_BYTES + 777)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, PIECE_BYTES + 9)), max_size=12))
def test_all_of_it_comes_once_and_in_order(asked: list[tuple[bool, int]]) -> None:
    raw, found = RawStream(io.BytesIO(DATA)), b""
    for peeks, size in asked:
        if peeks:
            ahead = raw.peek(size)
            assert len(ahead) >= min(size, len(DATA) - len(found))
            assert DATA[len(found) :].startswith(ahead)
        else:
            found += raw.read(size)
    found += raw.read()
    assert found == DATA
    assert raw.bytes == len(DATA)
    assert raw.digest == hashlib.sha256(DATA).hexdigest()
    assert raw.head == hashlib.sha256(DATA[:HEAD_BYTES]).hexdigest()
    assert raw.read() == raw.read(1) == raw.peek(1) == b""
