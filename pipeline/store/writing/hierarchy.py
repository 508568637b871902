"""The Zarr hierarchy of a store: its root, the codebook that tokens index into, and what a rule needs beside it."""

from collections.abc import Iterable, Mapping

import zarr
from zarr.storage import MemoryStore

from pipeline.errors import CorruptStore
from pipeline.files import Files
from pipeline.files.damage import damaged
from pipeline.store.arrays.codebook import check_codebook
from pipeline.store.arrays.group import Memory, contents_of
from pipeline.store.arrays.rule_arrays import read_rule_arrays
from pipeline.store.arrays.storage import create_array
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.digest import content_digest
from pipeline.store.schema.groups import has_root, read_node, subgroups
from pipeline.store.types import Array


def rule_digest(arrays: Mapping[str, Array]) -> str | None:
    """What the birth says of the arrays that a rule needs: their content digest; None where it needs none."""
    return content_digest(arrays) if arrays else None


def prepare_hierarchy(
    files: Files, birth: Birth, table: Array | None, rule_arrays: Mapping[str, Array] | None = None
) -> None:
    """Create the Zarr hierarchy of a store, or complete one whose creation was interrupted.

    Every process of a job may do this at once: all put the same bytes, each file atomically, the root's
    metadata last.

    Args:
        table: float32 [K, C], or None for a tokenizer without one.
        rule_arrays: what the rule of the tokenizer needs besides, by name.

    Raises CorruptStore when the codebook or the rule's arrays in the store are not those of its birth.
    """
    if not has_root(files):
        memory: Memory = {}
        group = zarr.create_group(MemoryStore(memory), zarr_format=3, attributes=birth.attributes)
        group.create_group("parts")
        if table is not None:
            create_array(group, "codebook", table, birth.codec)
        if rule_arrays:
            rule = group.create_group(names.RULE).create_group(birth.var_input)
            for name, array in rule_arrays.items():
                create_array(rule, name, array, birth.codec, named=False)
        for path, data in reversed(contents_of(memory).items()):
            files.put(f"{names.HIERARCHY}/{path}", data)
    check_codebook(files, birth)
    check_rule(files, birth, rule_arrays or ())


def check_root(files: Files, birth: Birth) -> None:
    """Raise CorruptStore unless readers that know only Zarr find the parts, and what they hold, and no other group."""
    path = f"{names.HIERARCHY}/zarr.json"
    expected = {"parts", names.RULE} if birth.rule_digest else {"parts"}
    try:
        root = read_node(files, names.HIERARCHY)
        # By name, for the lists of some servers lag behind.
        kinds = {read_node(files, f"{names.HIERARCHY}/{group}").get("node_type") for group in expected}
        others = subgroups(files, names.HIERARCHY) - expected
    except (CorruptStore, OSError) as error:
        raise damaged(files, path, f"the root of the hierarchy cannot be read: {error}") from error
    if root.get("attributes") != birth.attributes or kinds != {"group"} or others:
        raise damaged(files, path, f"the root of the hierarchy is not as {names.STORE} says")


def check_rule(files: Files, birth: Birth, known: Iterable[str] = ()) -> dict[str, Array]:
    """The arrays that the store's rule needs beside the codebook, by name; none where it needs none.

    Args:
        known: names of which a list may not tell yet.

    Raises CorruptStore when one is missing, unreadable or not that of the store's birth, or something else is there.
    """
    if birth.rule_digest is None:
        return {}
    folder = f"{names.HIERARCHY}/{names.RULE}"
    path = f"{folder}/{birth.var_input}"
    try:
        kinds = [read_node(files, group).get("node_type") for group in (folder, path)]
        arrays, others = read_rule_arrays(files, birth, path, known), set(files.folders(folder)) - {birth.var_input}
    except Exception as error:
        raise damaged(files, path, f"the rule's arrays cannot be read: {error}") from error
    if kinds != ["group", "group"] or others or content_digest(arrays) != birth.rule_digest:
        raise damaged(files, path, f"the rule's arrays are not those that {names.STORE} names")
    return arrays
