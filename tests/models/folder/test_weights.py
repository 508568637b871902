import hashlib
import json
from typing import Any

import pytest
import torch
from safetensors.torch import save

from pipeline.models.folder.weights import files_digest, tensor_entries, weights_digest

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([True, False]), "scalar": torch.tensor(1.5).half()}


def file_of(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_entries_point_at_the_bytes_of_each_tensor() -> None:
    data = save(TENSORS)
    entries = tensor_entries(data)
    assert [(e.name, e.dtype, e.shape) for e in entries] == [
        ("a", "BOOL", (2,)),
        ("b", "F32", (2, 3)),
        ("scalar", "F16", ()),
    ]
    for found in entries:
        assert data[found.start : found.stop] == TENSORS[found.name].numpy().tobytes()


def test_the_digest_is_over_sorted_tensors_alone() -> None:
    one, two = entry("U8", [2], 0, 2), entry("U8", [1], 2, 3)
    swapped = {"two": entry("U8", [1], 0, 1), "one": entry("U8", [2], 1, 3)}
    digest = weights_digest(file_of({"one": one, "two": two}, b"abc"))
    assert digest == weights_digest(file_of(swapped | {"__metadata__": {"by": "somebody"}}, b"cab"))
    # Stores hold digests, so the rule may never change.
    expected = hashlib.sha256(b'["one","U8",[2]]ab["two","U8",[1]]c')
    assert digest == f"sha256:{expected.hexdigest()}"


@pytest.mark.parametrize(
    "other",
    [
        file_of({"one": entry("U8", [2], 0, 2)}, b"ax"),
        file_of({"uno": entry("U8", [2], 0, 2)}, b"ab"),
        file_of({"one": entry("I8", [2], 0, 2)}, b"ab"),
        file_of({"one": entry("U8", [2, 1], 0, 2)}, b"ab"),
    ],
)
def test_bytes_name_dtype_and_shape_each_change_the_digest(other: bytes) -> None:
    assert weights_digest(other) != weights_digest(file_of({"one": entry("U8", [2], 0, 2)}, b"ab"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends inside its header"),
        (b"\x00" * 7, "ends inside its header"),
        ((2**62).to_bytes(8, "little") + b"{}", "ends inside its header"),
        (file_of([], b""), "its header is not"),
        (file_of({"a": 3}, b""), "its header is not"),
        (file_of({"a": {"dtype": "F32", "shape": [1]}}, b""), "its header is not"),
        (file_of({"a": entry("F31", [1], 0, 4)}, b"abcd"), "its header is not"),
        (file_of({"a": entry("F32", [2], 0, 4)}, b"abcd"), "range of a does not fit"),
        (file_of({"a": entry("F32", [-1], 0, -4)}, b"abcd"), "range of a does not fit"),
        (file_of({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"abc"), "overlap or leave a gap at b"),
        (file_of({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"abc"), "overlap or leave a gap at b"),
        (file_of({"a": entry("U8", [2], 0, 2)}, b"abc"), "bytes where its header tells of"),
        ((2).to_bytes(8, "little") + b"{{", "its header is not"),
        ((2).to_bytes(8, "little") + b"\xff\xff", "its header is not"),
        ((200_000).to_bytes(8, "little") + b"[" * 200_000, "its header is not"),
        (file_of({"a": entry("F32", [1e400, 0], 0, 0)}, b""), "its header is not"),  # type: ignore[list-item]
        (file_of({"a": entry("F32", [10**4000] * 40 + [0], 0, 0)}, b""), "range of a does not fit"),
        (file_of({"a": entry("F32", [1 << 62, 0], 0, 0)}, b""), "range of a does not fit"),
    ],
)
def test_what_is_no_whole_safetensors_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensor_entries(data)


def test_the_digest_of_several_files_is_of_names_and_contents() -> None:
    one, other = save({"a": torch.zeros(2)}), save({"a": torch.ones(2)}, metadata={"note": "x"})
    assert files_digest({"model.safetensors": one}) == weights_digest(one)
    both = files_digest({"a.safetensors": one, "b/c.json": b"{}"})
    assert both == files_digest({"b/c.json": b"{}", "a.safetensors": save({"a": torch.zeros(2)}, metadata={"x": "y"})})
    others = (
        {"a.safetensors": other, "b/c.json": b"{}"},
        {"a.safetensors": one, "b/c.json": b"{ }"},
        {"a.safetensors": one, "b/d.json": b"{}"},
        {"a.safetensors": one},
    )
    assert len({both, *map(files_digest, others)}) == 5
    with pytest.raises(ValueError, match=r"^a\.safetensors: it ends inside its header"):
        files_digest({"a.safetensors": one[:20], "b/c.json": b"{}"})
