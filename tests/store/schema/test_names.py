"""A name in a record becomes a path only when it is one step of it, or stays below its folder."""

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.source.shards.naming import part_name
from pipeline.store.schema.names import AttemptName, Inside, PartName, Step, is_attempt, is_part

LEADING_ELSEWHERE = [
    "",
    ".",
    "..",
    "...",
    "/",
    "/etc",
    "../x",
    "a/..",
    "a/../../x",
    "a//b",
    "a/",
    "a\0b",
    "\x1b[2J",
    "a\n",
]
STEPS = ["txt", "v1.0.jpg", ".hidden", "größe", "a b", "a..b"]


@pytest.mark.parametrize("kind", [PartName, AttemptName, Step, Inside])
@pytest.mark.parametrize("name", LEADING_ELSEWHERE)
def test_what_leads_elsewhere_is_no_name(kind: object, name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(name)


@pytest.mark.parametrize("name", STEPS)
def test_fields_may_be_called_anything_else(name: str) -> None:
    assert TypeAdapter(Step).validate_python(name) == name
    assert TypeAdapter(Inside).validate_python(f"fields/{name}/data/c/0") == f"fields/{name}/data/c/0"


@pytest.mark.parametrize(
    "path", ["train-0000.tar", "a/größe 1.tar", "x" * 300 + ".tar", "https://host/a.tar?b", "#a", ""]
)
def test_every_source_shard_has_a_name(path: str) -> None:
    part = part_name(path)
    assert is_part(part)
    assert TypeAdapter(PartName).validate_python(part) == part
    assert is_attempt(f"{part}.0123abcd")
    assert is_attempt(f"{part}+r1.0123abcd")


@pytest.mark.parametrize(
    "name", ["project.old", ".ssh", "notes.v1", "train-0000.01234567", "a-0123456789ab.old", "", "."]
)
def test_what_this_package_does_not_name_is_no_attempt(name: str) -> None:
    assert not is_attempt(name)
