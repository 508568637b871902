"""Names of a package that are imported when they are asked for, because importing torch takes seconds."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562).

    Args:
        package: `__name__` of the package.
        homes: the module that each name is in.

    Raises ImportError with its cause where a module cannot be imported: Python takes an AttributeError, such as
    that of a damaged installation of torch, for a name that the package does not have, and hides it.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(homes[name]), name)
        except AttributeError as error:
            raise ImportError(f"{homes[name]} cannot be imported: {error}") from error

    return find
