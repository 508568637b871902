"""The groups above all parts, for readers that know only Zarr: looked at without it."""

import json

from pipeline.files import Files
from pipeline.files.damage import damaged, naming_no_file
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth


def check_groups(files: Files, birth: Birth) -> None:
    """Raise CorruptStore unless the root of the hierarchy and the group of parts say what the birth says."""
    for group, attributes in ((names.HIERARCHY, birth.attributes), (names.PARTS, {})):
        path = f"{group}/zarr.json"
        try:
            with naming_no_file(files, path):
                found = json.loads(files.read(path))
        except FileNotFoundError:
            raise damaged(files, path, "missing") from None
        except (ValueError, RecursionError) as error:
            raise damaged(files, path, f"no metadata of a group ({error})") from None
        expected = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        if not isinstance(found, dict) or {name: found.get(name) for name in expected} != expected:
            raise damaged(files, path, f"no metadata of a group, or not as {names.STORE} says")
