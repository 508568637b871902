"""Records, their JSON, and how two of them are told apart."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support import examples

from pipeline.records import Geometry, Normalization, Reject, canonical_json, differences, digest_of

REJECT = Reject(key="n01/ü", index=3, stage="decode", reason="broken\nfile")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_record_survives_its_json() -> None:
    assert Reject.model_validate_json(REJECT.to_json()) == REJECT
    assert REJECT.to_json().endswith(b"}\n")
    assert "ü".encode() in REJECT.to_json()


def test_equal_records_have_equal_bytes() -> None:
    turned = Reject(reason="broken\nfile", stage="decode", index=3, key="n01/ü")
    assert turned.to_json() == REJECT.to_json()


def test_a_record_refuses_unknown_and_missing_fields_and_changes() -> None:
    fields = json.loads(REJECT.to_json())
    with pytest.raises(ValidationError, match="extra"):
        Reject.model_validate({**fields, "extra": 1})
    del fields["stage"]
    with pytest.raises(ValidationError, match="stage"):
        Reject.model_validate(fields)
    with pytest.raises(ValidationError):
        REJECT.index = 4  # type: ignore[misc]


def test_the_tokens_of_a_geometry_are_those_of_its_blocks() -> None:
    geometry = Geometry(image_size=(20, 24), grid=(5, 6), layout="diagonal", block_lengths=(6, 9), decodable=False)
    assert geometry.num_tokens == 15
    assert Geometry.model_validate_json(geometry.to_json()) == geometry


def test_the_value_range_of_a_normalization_is_that_of_its_widest_channel() -> None:
    assert Normalization().value_range == (-1.0, 1.0)
    uneven = Normalization(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    assert uneven.value_range == (-1.0, 3.0)


def test_canonical_json_is_this_very_text() -> None:
    assert canonical_json({"b": [1, 2.5, None, True], "a": {"z": "ü", "y": ""}}) == (
        '{"a":{"y":"","z":"ü"},"b":[1,2.5,null,true]}'.encode()
    )
    # sha256 of `{}`; a change here changes the fingerprint of every store.
    assert digest_of({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@settings(max_examples=examples(40))
@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_canonical_json_does_not_know_the_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_json(turned) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


DIFFERENCES = [
    ({"a": 1}, {"a": 1}, []),
    ({"image": {"size": 64}}, {"image": {"size": 32}}, ["image.size: 64 here, 32 there"]),
    ({"a": {"b": {"c": "x"}}}, {"a": {"b": {"c": "y"}}}, ['a.b.c: "x" here, "y" there']),
    ({"a": 1}, {}, ["a: 1 here, null there"]),
    ({}, {"a": {"b": 1}}, ['a: null here, {"b": 1} there']),  # a whole branch at once
    ({"a": [1, 2]}, {"a": [1, 3]}, ["a: [1, 2] here, [1, 3] there"]),  # lists are leaves
    ({"b": 1, "a": 1}, {"a": 2, "b": 2}, ["a: 1 here, 2 there", "b: 1 here, 2 there"]),  # sorted
    ({"a": None}, {}, []),  # null and absent are the same
]


@pytest.mark.parametrize(("ours", "theirs", "expected"), DIFFERENCES)
def test_differences_name_every_leaf(ours: object, theirs: object, expected: list[str]) -> None:
    assert differences(ours, theirs) == expected


@settings(max_examples=examples(40))
@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_nothing_differs_from_itself(value: dict[str, object]) -> None:
    assert differences(value, json.loads(json.dumps(value))) == []
