"""In what two configurations of a training differ, and which of it may change between two runs. Needs no torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.before import completed
from pipeline.config import Config
from pipeline.records import JSON
from pipeline.redaction import redacted_tree

_SECTIONS = ("source", "image", "train")
_NEVER_COMPARED = {
    "source.base",
    "source.label",
    "source.classes",
    "source.key",
    "source.keep",
    "source.nested",
    "source.regroup",
    "source.allow_unterminated",
    "source.allow_pipe",
    "source.max_header_bytes",
    "source.max_member_bytes",
    "source.max_kept_bytes",
    "source.max_expansion",
    "train.workers",
    "train.log_every",
    "train.evaluate_every",
    "train.checkpoint_every",
}
"""Keys that decide no weights."""
PATTERNS = frozenset({"source.shards", "source.exclude", "train.holdout"})
"""Keys that name files: what the files are counts, and not what they are called here."""
FROM_NOW_ON = frozenset({"train.steps", "train.learning_rate"})
"""Keys that decide what is still to come, and change nothing about what was done."""


@dataclass(frozen=True)
class Change:
    """One field with two values, of which None is absence."""

    field: str
    here: Any
    there: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.here)} here, {_shown(self.there)} there"


def configuration_of(config: Config) -> JSON:
    """The sections that decide the weights, for `train.json`; the views of an image, which training has not, do not.

    People share tokenizer folders: there are no secrets in it.
    """
    tree: JSON = redacted_tree(config.model_dump(mode="json", include=set(_SECTIONS), exclude={"image": {"views"}}))
    return tree


def changed_values(config: Config, then: JSON) -> list[Change]:
    """The fields in which a configuration differs from that of a `train.json`, patterns of files among them.

    Secrets are not compared: a `train.json` of an older version may hold them, and later ones do not.
    """
    trees = configuration_of(config), redacted_tree(then)
    now, before = (dict(_leaves(completed(Config, tree))) for tree in trees)
    compared = sorted((now.keys() | before.keys()) - _NEVER_COMPARED)
    changes = [Change(field, now.get(field), before.get(field)) for field in compared]
    return [change for change in changes if change.here != change.there]


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of the sections that decide the weights, by dotted name."""
    for key, value in tree.items():
        if not path and key not in _SECTIONS:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
