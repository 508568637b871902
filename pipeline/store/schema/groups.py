"""The groups of the hierarchy, for readers that know only Zarr: looked at without it, as text."""

import json

from pipeline.errors import CorruptStore
from pipeline.files import Files
from pipeline.files.damage import damaged, naming_no_file
from pipeline.records import JSON
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth

ROOT = f"{names.HIERARCHY}/zarr.json"
"""Written last of what lies above the parts, so that it is there when all of that is."""
REMEDY = f"; restore it from a copy of the store, or delete {ROOT} and run vqtok tokenize, which writes it anew"


def has_root(files: Files) -> bool:
    """Whether there is a hierarchy, as far as its root tells."""
    try:
        files.stat(ROOT)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_groups(files: Files, birth: Birth) -> None:
    """Raise CorruptStore unless the root of the hierarchy and the group of parts say what the birth says."""
    for group, attributes in ((names.HIERARCHY, birth.attributes), (names.PARTS, {})):
        try:
            found = read_node(files, group)
        except CorruptStore as error:
            raise CorruptStore(f"{error}{REMEDY}") from None
        expected = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        if {name: found.get(name) for name in expected} != expected:
            said = f"no metadata of a group, or not as {names.STORE} says"
            raise damaged(files, f"{group}/zarr.json", f"{said}{REMEDY}")


def read_node(files: Files, path: str) -> JSON:
    """The Zarr v3 metadata of a group or an array. Raises CorruptStore where there are none."""
    file = f"{path}/zarr.json"
    try:
        with naming_no_file(files, file):
            found = json.loads(files.read(file))
    except FileNotFoundError:
        raise damaged(files, file, "missing") from None
    except (ValueError, RecursionError) as error:
        raise damaged(files, file, f"no metadata of a group or an array ({error})") from None
    if not isinstance(found, dict) or found.get("zarr_format") != 3:
        raise damaged(files, file, "no metadata of a group or an array of Zarr 3")
    return found


def subgroups(files: Files, path: str) -> set[str]:
    """Names of the groups directly in a group. Raises CorruptStore for a folder that is neither group nor array."""
    return {name for name in files.folders(path) if read_node(files, f"{path}/{name}").get("node_type") == "group"}
