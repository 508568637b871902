"""The content digest is what its documentation says, and anybody can recompute it with plain Zarr."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import zarr
from fixtures_store import Job, cold_python, store_of_rows
from support import ROOT

from pipeline.store import TokenStore
from pipeline.store.schema.digest import content_digest

pytest_plugins = ["fixtures_store"]

DOCUMENTATION = ROOT / "docs/store-format.md"


def test_the_digest_is_sha256_over_described_arrays() -> None:
    tokens = np.array([[1, 2, 3], [4, 5, 600]], np.uint16)
    label = np.array([-1, 7], np.int64)
    expected = hashlib.sha256(
        b"label <i8 2\n" + b"\xff" * 8 + b"\x07" + bytes(7) + b"tokens <u2 2,3\n"
        b"\x01\x00\x02\x00\x03\x00\x04\x00\x05\x00\x58\x02"
    ).hexdigest()
    assert content_digest({"tokens": tokens, "label": label}) == expected


@pytest.mark.parametrize(
    "same",
    [
        np.arange(6, dtype=">u2").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype="<u2").reshape(2, 3)),
        np.arange(12, dtype="<u2").reshape(2, 6)[:, ::2] // 2,
    ],
    ids=["big-endian", "column-major", "strided"],
)
def test_how_an_array_lies_in_memory_does_not_matter(same: np.ndarray) -> None:
    plain = np.arange(6, dtype="<u2").reshape(2, 3)
    assert content_digest({"tokens": same}) == content_digest({"tokens": plain})


def test_whatever_else_changes_changes_the_digest() -> None:
    plain = np.arange(6, dtype="<u2").reshape(2, 3)
    digests = [
        content_digest({"tokens": plain}),
        content_digest({"tokens": plain.reshape(3, 2)}),
        content_digest({"tokens": plain.astype("<u4")}),
        content_digest({"token": plain}),
        content_digest({"tokens": plain + np.uint16(1)}),
        content_digest({"tokens": plain[:0]}),
        content_digest({}),
    ]
    assert len(set(digests)) == len(digests)


def test_codecs_and_chunks_do_not_matter(tmp_path: Path) -> None:
    lz4, raw = (TokenStore(store_of_rows(tmp_path / codec, [9, 0, 4], codec=codec)) for codec in ("lz4", "raw"))
    assert lz4.content_digest == raw.content_digest


def test_plain_zarr_and_hashlib_recompute_the_digest_of_a_store(finished: Job) -> None:
    store = TokenStore(finished.store)
    lines = []
    for part in store.manifest.parts:
        group = zarr.open_group(str(finished.store / f"tokens.zarr/parts/{part.part}.{part.attempt}"), mode="r")
        arrays = {path: node for path, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
        digest = hashlib.sha256()
        for path, array in sorted(arrays.items()):
            values = np.asarray(array[...])
            digest.update(f"{path} {values.dtype.str} {','.join(map(str, values.shape))}\n".encode())
            digest.update(values.tobytes())
        assert digest.hexdigest() == part.content_digest
        lines.append(f"{part.part} {digest.hexdigest()}\n")
    assert hashlib.sha256("".join(sorted(lines)).encode()).hexdigest() == store.content_digest


def test_the_documented_program_agrees(finished: Job) -> None:
    (documented,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    program = documented.replace("runs/sample/store", str(finished.store))
    done = cold_python(program, options=["-W", "error", "-W", "ignore::ResourceWarning"])
    assert (done.status, done.err) == (0, "")
    wrong = program.replace('["content_digest"]', '["content_digest"].upper()')
    assert "AssertionError" in cold_python(wrong).err
