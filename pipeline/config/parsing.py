"""YAML of a stranger, in bounded memory and time.

Aliases (`*name`) let a few lines stand for billions of values, nested ones for deeper trees than Python can walk.
"""

from typing import Any

import yaml

_MOST_VALUES = 1_000_000
_DEEPEST = 64
_MOST_MERGED = 10_000


def parse_yaml(text: str) -> Any:
    """What a text of YAML holds. Raises ValueError for what is none, and for one that stands for too much."""
    try:
        tree = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"not valid YAML: {_in_words(error)}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"not a configuration: sections lie in one another, deeper than {_DEEPEST}") from None
    except (ValueError, OverflowError) as error:  # a date or a number that cannot be
        raise ValueError(f"not valid YAML: {error}; quote the value if a text is meant") from None
    _refuse_explosion(tree)
    return tree


class _Loader(yaml.SafeLoader):
    """SafeLoader that does not merge (`<<: *name`) without end."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MOST_MERGED:
            raise yaml.constructor.ConstructorError(
                None, None, f"a section of more than {_MOST_MERGED:,} merged keys", node.start_mark
            )


def _in_words(error: yaml.MarkedYAMLError) -> str:
    """Where and why, without the line itself, which may hold a secret."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + " ".join(" ".join(filter(None, [error.context, error.problem, error.note])).split())


def _refuse_explosion(tree: Any) -> None:
    """Raise ValueError for more values than a configuration can have, each counted as often as an alias names it."""
    ahead, count = [(tree, 0)], 0
    while ahead:
        node, depth = ahead.pop()
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        count += len(children)
        if count > _MOST_VALUES:
            raise ValueError(
                f"not a configuration: more than {_MOST_VALUES:,} values, written out or by aliases (*name)"
            )
        if depth > _DEEPEST:
            raise ValueError(f"not a configuration: sections lie in one another, deeper than {_DEEPEST}")
        ahead += [(child, depth + 1) for child in children]
