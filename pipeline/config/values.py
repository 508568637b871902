"""What stands in for values of the file: overrides, and environment variables."""

import os
import re
from typing import Any

from pipeline.config.parsing import parse_yaml
from pipeline.errors import ConfigError
from pipeline.redaction import redacted_place


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Put `section.key=value` into the tree. Raises ConfigError for one that is not written so."""
    shown = redacted_place(override)
    dotted, equals, text = override.partition("=")
    *sections, key = dotted.strip().split(".")
    if not equals or not sections or not all([*sections, key]):
        raise ConfigError(f"--set {shown!r}: write it as section.key=value, such as tokenize.batch_size=32")
    node = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        child = node[section]
        if not isinstance(child, dict):
            raise ConfigError(f"--set {shown!r}: {section} is not a section")
        node = child
    try:
        node[key] = parse_yaml(text)
    except ValueError:
        node[key] = text  # a brace pattern such as {a,b}.tar is a fine string and bad YAML


# The default may hold a brace pattern: ${SHARDS:-train-{0000..0003}.tar}.
_VARIABLE = re.compile(r"\$\{(\w+)(?::-((?:[^{}]|\{[^{}]*\})*))?\}")


def names_variable(node: Any) -> bool:
    """Whether a text, or one below it, has a `${NAME}`."""
    if isinstance(node, dict):
        return any(map(names_variable, node.values()))
    if isinstance(node, list):
        return any(map(names_variable, node))
    return isinstance(node, str) and _VARIABLE.search(node) is not None


def expand_variables(node: Any, file: str) -> Any:
    """Every text with its `${NAME}`s replaced.

    Raises ConfigError for one without a default that is not set, or that is empty where a path begins with it:
    `${DATA}/store` would be `/store`.
    """

    def value_of(match: re.Match[str]) -> str:
        name, default = match.groups()
        value = os.environ.get(name)
        if value is None and default is None:
            raise ConfigError(
                f"{file}: the environment variable {name} is not set; export it or use --set (in Python: set=[...])"
            )
        if not value and default is None and match.start() == 0 and match.string[match.end() :].startswith("/"):
            raise ConfigError(
                f"{file}: the environment variable {name} is empty, and so what follows it would lie in the root "
                f"folder; give it a value, or write ${{{name}:-}} where that is meant"
            )
        return value or default or ""

    if isinstance(node, dict):
        return {key: expand_variables(child, file) for key, child in node.items()}
    if isinstance(node, list):
        return [expand_variables(child, file) for child in node]
    return _VARIABLE.sub(value_of, node) if isinstance(node, str) else node
