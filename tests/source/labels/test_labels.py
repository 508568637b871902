"""What a sample is labelled, by every rule."""

from typing import Any

import pytest

from pipeline.config import SourceConfig
from pipeline.errors import BadLabel, SourceError
from pipeline.source.labels.labels import Labels
from pipeline.source.labels.table import Table
from pipeline.source.sample import Sample

NAMES = ("1", "10", "cat", "dog")
TABLE = Table("t.csv", {"a": "3", "b": "cat", "c/d": "1.0"}, ())


def labels(rule: str | None, classes: tuple[str, ...] | None = NAMES, **options: Any) -> Labels:
    return Labels(SourceConfig(shards="x.tar", label=rule, **options), classes, TABLE)


def sample(key: str = "key", **members: bytes) -> Sample:
    return Sample(0, key, dict(members))


FOUND: list[tuple[str | None, Sample, int]] = [
    (None, sample(cls=b"3"), -1),
    ("cls", sample(cls=b"3"), 3),
    ("cls", sample(cls=b"1.0\n"), 1),
    ("cls", sample(cls=b"dog\n"), 3),
    ("cls", sample(cls=b"10"), 10),  # an integer is taken as it is, also where a class is called so
    ("cls", sample(), -1),
    ("json:label", sample(json=b'{"label": 7}'), 7),
    ("json:label", sample(json=b'{"label": 7.0}'), 7),
    ("json:label", sample(json=b'{"label": "cat"}'), 2),
    ("json:label", sample(json=b'{"label": null}'), -1),
    ("json:label", sample(json=b"[]"), -1),
    ("json:label", sample(), -1),
    ("json:meta.class_id", sample(json=b'{"meta": {"class_id": "5"}}'), 5),
    ("json:meta.class_id", sample(json=b'{"meta.class_id": 6, "meta": {"class_id": 5}}'), 6),
    ("json:a.b.c", sample(json=b'{"a.b": {"c": 4}}'), 4),
    ("json:meta.class_id", sample(json=b'{"meta": 5}'), -1),
    ("folder", sample("10/x_1"), 1),  # the name of a folder is a name
    ("folder", sample("./cat/deep/er/x"), 2),
    ("folder", sample("x"), -1),
    ("folder", sample("./x"), -1),
    ("prefix:_", sample("cat_001_2"), 2),
    ("prefix:_", sample("some/where/dog_1"), 3),
    ("prefix:-img-", sample("1-img-7"), 0),
    ("prefix:_", sample("cat"), -1),
    ("prefix:_", sample("_cat"), -1),
    ("table:t.csv", sample("a"), 3),
    ("table:t.csv", sample("./val/b"), 2),
    ("table:t.csv", sample("c/d"), 1),
    ("table:t.csv", sample("d"), -1),
]


@pytest.mark.parametrize(("rule", "found", "label"), FOUND)
def test_what_a_sample_is_labelled(rule: str | None, found: Sample, label: int) -> None:
    assert labels(rule).of(found) == label


BAD: list[tuple[str, Sample, str]] = [
    ("json:label", sample(json=b"{"), ".json holds b'{', no JSON"),
    ("json:label", sample(json=b"[" * 100_000), ", no JSON"),
    ("json:label", sample(json=b'{"label": true}'), "'True' at label, neither text nor a number"),
    ("json:label", sample(json=b'{"label": [1]}'), "'[1]' at label, neither"),
    ("json:label", sample(json=b'{"label": 0.5}'), ".json at label holds '0.5', not an integer"),
    ("json:label", sample(json=b'{"label": 9223372036854775808}'), "does not fit 64 bits"),
    ("cls", sample(cls=b"cat"), "not an integer; the names of classes go into source.classes"),
]


@pytest.mark.parametrize(("rule", "found", "reason"), BAD)
def test_a_bad_label_is_a_reject(rule: str, found: Sample, reason: str) -> None:
    with pytest.raises(BadLabel) as caught:
        labels(rule, classes=None).of(found)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "found"),
    [("folder", sample("cow/1")), ("prefix:_", sample("cow_1")), ("cls", sample(cls=b"cow"))],
)
def test_a_class_that_the_store_lacks_fails_its_source_shard(rule: str, found: Sample) -> None:
    with pytest.raises(SourceError, match=r"the class 'cow' is not among the 4 .* name all of them in source\.classes"):
        labels(rule).of(found)


def test_training_has_no_classes_and_takes_every_sample() -> None:
    assert labels("folder", None).of(sample("cow/1")) == -1
    unread = Labels(SourceConfig(shards="x.tar", classes="never-read.txt"))
    assert unread.of(sample(cls=b"cow")) == -1
