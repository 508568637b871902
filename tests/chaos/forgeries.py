"""Stores and tokenizer folders as somebody makes them who means harm, drawn by a seed.

Unlike damage, a forgery has right digests wherever its maker can compute them: records are sealed anew.
"""

import base64
import json
import os
import random
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.store.schema.seals import sealed

Tree = dict[str, Any]
Forgery = Callable[[Path, Path, random.Random], str]
"""Changes the folder of a store or a tokenizer; what it may lead to lies in a second one. Returns what was done."""

_FOLDERS = ("staging", "rejects", "commits", "claims", "failures", "listings", "tokens.zarr", "tokens.zarr/parts")
_NUMBERS = (-1, 0, 1, 2**31, 2**32, 2**40, 2**47, 2**63, 10**30, 10**9, 60_000, 1e308)
_NAMES = (
    "../outside/precious",
    "../../outside",
    "/etc/passwd",
    "/dev/zero",
    "..",
    ".",
    "",
    "a/b",
    "a\0b",
    "\x1b[2J",
    "x" * 5000,
    "project",
)


def make_outside(folder: Path) -> Path:
    """What no command may change: files and folders whose names look like those that commands delete."""
    for name in ("project.old", "part-000000000000.11111111", "step-000001", ".tmp-step-000001"):
        (folder / name).mkdir(parents=True)
        (folder / name / "precious").write_text("mine")
    for name in ("precious", "notes.v1.jsonl", "part-000000000000.22222222.jsonl", "x.json"):
        (folder / name).write_text("mine")
    return folder


# --- any folder --------------------------------------------------------------------------------------------


def odd_file(folder: Path, outside: Path, draw: random.Random) -> str:
    """A FIFO, a device, a folder or a link in the place of a file."""
    path = draw.choice(_files(folder))
    path.unlink()
    kind = draw.choice(("FIFO", "endless device", "folder", "link to a file", "link to nothing", "socket"))
    match kind:
        case "FIFO":
            os.mkfifo(path)
        case "endless device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "link to a file":
            path.symlink_to(outside / "precious")
        case "link to nothing":
            path.symlink_to(outside / "made")
        case "socket":
            path.symlink_to("/dev/full")
    return f"a {kind} as {path.relative_to(folder)}"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a tree of JSON there are values."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _places(value, (*path, key))
    else:
        yield path


def _change(tree: Any, draw: random.Random, kind: type, values: tuple[Any, ...]) -> str:
    """Give one value of a kind another one; returns where and which."""
    places = [place for place in _places(tree) if type(_at(tree, place)) is kind]
    if not places:
        return "nothing"
    *above, last = draw.choice(places)
    value = draw.choice(values)
    _at(tree, above)[last] = value
    return f"{'.'.join(map(str, [*above, last]))} = {str(value)[:40]!r}"


def _at(tree: Any, place: Any) -> Any:
    for key in place:
        tree = tree[key]
    return tree


# --- stores ------------------------------------------------------------------------------------------------


def linked_folder(store: Path, outside: Path, draw: random.Random) -> str:
    """A folder of the store is a link to another one."""
    name = draw.choice(_FOLDERS)
    path = store / name
    if path.is_dir() and draw.random() < 0.5:  # its contents are there, so that all seems well
        shutil.copytree(path, outside, dirs_exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside)
    if draw.random() < 0.5:
        _foreign_commits(store)
    return f"{name} is a link"


def foreign_commit(store: Path, outside: Path, draw: random.Random) -> str:
    """Records of parts that are none, beside attempts to be swept."""
    _foreign_commits(store)
    (store / "staging").mkdir(exist_ok=True)
    for name in ("project.old", ".ssh", "..old"):
        (store / "staging" / name).symlink_to(outside)
    return "records of other names"


def _foreign_commits(store: Path) -> None:
    commits = sorted((store / "commits").glob("*-*.json"))
    if commits and not (store / "commits").is_symlink():
        for name in ("project", "", "part-000000000000", "..", "\x1b[2J"):
            tree = _load(commits[0])
            _write(store / "commits" / f"{name}.json", {**tree, "part": name, "attempt": "v1"})


def forged_number(store: Path, outside: Path, draw: random.Random) -> str:
    """A number of a record is another one."""
    path, tree = _record(store, draw)
    return f"{path.relative_to(store)}: {_reseal(path, tree, _change(tree, draw, int, _NUMBERS))}"


def forged_name(store: Path, outside: Path, draw: random.Random) -> str:
    """A text of a record is a path that leads elsewhere, or no name at all."""
    path, tree = _record(store, draw)
    return f"{path.relative_to(store)}: {_reseal(path, tree, _change(tree, draw, str, _NAMES))}"


def forged_claim(store: Path, outside: Path, draw: random.Random) -> str:
    """Sizes that agree with each other, and with no file."""
    kind = draw.choice(("written", "counts", "grid", "vocabulary", "views", "embedding"))
    path = store / ("manifest.json" if kind in ("written", "counts") else "store.json")
    if path.is_symlink() or not path.is_file():
        return "nothing"
    tree = _load(path)
    match kind:
        case "written":
            more = draw.choice([2**30, 2**40, 2**47])
            tree["parts"][0]["written"] += more
            tree["written"] += more
        case "counts":
            tree["code_counts"] = base64.b64encode(zlib.compress(bytes(1 << 28), 9)).decode()
        case "grid":
            side = draw.choice([60_000, 40_000, 2**31])
            tree["geometry"] |= {"grid": [side, side], "image_size": [4 * side, 4 * side], "layout": "raster"}
            tree["geometry"]["block_lengths"] = [side * side]
        case "vocabulary":
            tree["codebook"]["vocab_size"] = 2**32
            tree["token_dtype"] = "uint32"
        case "views":
            tree |= {"views": draw.choice([2**20, 2**40]), "features": [*tree["features"], "views"]}
        case "embedding":
            tree["codebook"]["embedding_dim"] = draw.choice([2**31, 2**32 - 1])
    return f"forged {kind}: {_reseal(path, tree, 'sizes')}"


def forged_array(store: Path, outside: Path, draw: random.Random) -> str:
    """An array's metadata ask for another codec, another type, or memory; or there are those of Zarr 2 beside it."""
    path = draw.choice(sorted(store.glob("tokens.zarr/**/zarr.json")))
    if draw.random() < 0.3:
        _as_zarr_2(path)
        return f"{path.parent.relative_to(store)} of Zarr 2, with code"
    tree = _load(path)
    what = _change(tree, draw, *draw.choice([(int, _NUMBERS), (str, ("numcodecs.pickle", "pickle", "object", "vlen"))]))
    path.unlink()
    path.write_text(json.dumps(tree))
    return f"{path.relative_to(store)}: {what}"


def forged_chunks(store: Path, outside: Path, draw: random.Random) -> str:
    """A chunk file tells of more chunks, or of chunks of other sizes, than it has; its index is right."""
    import google_crc32c

    path = draw.choice(sorted(path for path in store.glob("tokens.zarr/**/c/**/*") if path.is_file()))
    data = bytearray(path.read_bytes())
    places = [struct.pack("<QQ", draw.choice([0, 2**40, 2**63]), draw.choice([16, 2**31, 2**62])) for _ in range(1)]
    index = b"".join(places)
    index += struct.pack("<I", google_crc32c.value(index))
    if draw.random() < 0.5 and len(data) > 36:  # of Blosc or Zstandard: sizes that lie
        data[4:12] = struct.pack("<II", draw.choice([2**31 - 1, 2**32 - 1]), draw.choice([1, 2**31 - 1]))
        data[-24:-20] = struct.pack("<I", google_crc32c.value(bytes(data[:-24])))
    else:
        data[-20:] = index
    path.unlink()
    path.write_bytes(bytes(data))
    return f"{path.relative_to(store)}: forged chunks"


CODE = b"cos\nsystem\n(S'touch %s'\ntR."
"""A pickle that runs a command."""


def _as_zarr_2(path: Path) -> None:
    """Turn an array or a group into one of Zarr 2 whose filter is pickle."""
    folder = path.parent
    path.unlink()
    marker = folder / "ran"
    (folder / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    array = {
        "zarr_format": 2,
        "shape": [1],
        "chunks": [1],
        "dtype": "|O",
        "fill_value": None,
        "order": "C",
        "filters": [{"id": "pickle", "protocol": 5}],
        "compressor": None,
    }
    (folder / ".zarray").write_text(json.dumps(array))
    (folder / "0").write_bytes(CODE % str(marker).encode())


def _record(store: Path, draw: random.Random) -> tuple[Path, Tree]:
    found = [store / "store.json", store / "manifest.json", *sorted((store / "commits").glob("*-*.json"))[:1]]
    path = draw.choice([path for path in found if path.is_file() and not path.is_symlink()])
    return path, _load(path)


def _load(path: Path) -> Tree:
    tree: Tree = json.loads(path.read_text())
    tree.pop("sha256", None)
    return tree


def _reseal(path: Path, tree: Tree, what: str) -> str:
    path.unlink()
    _write(path, tree)
    return what


def _write(path: Path, tree: Tree) -> None:
    path.write_bytes(sealed((json.dumps(tree, indent=1) + "\n").encode()))


STORES: dict[str, Forgery] = {
    "a file is none": odd_file,
    "a folder is a link": linked_folder,
    "records of other names": foreign_commit,
    "a number in a record": forged_number,
    "a name in a record": forged_name,
    "sizes that agree": forged_claim,
    "metadata of an array": forged_array,
    "chunks that lie": forged_chunks,
}
"""By kind."""


# --- tokenizers --------------------------------------------------------------------------------------------


def forged_setting(folder: Path, outside: Path, draw: random.Random) -> str:
    """A number of config.json is another one."""
    return _forged(folder, draw, int, _NUMBERS)


def forged_text(folder: Path, outside: Path, draw: random.Random) -> str:
    """A text of config.json is another one, or its files lie elsewhere."""
    if draw.random() < 0.3:
        tree = json.loads((folder / "config.json").read_text())
        tree["files"] = [draw.choice(_NAMES)]
        (folder / "config.json").write_text(json.dumps(tree))
        return f"files {tree['files']!r:.60}"
    return _forged(folder, draw, str, _NAMES)


def _forged(folder: Path, draw: random.Random, kind: type, values: tuple[Any, ...]) -> str:
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    what = _change(tree, draw, kind, values)
    path.unlink()
    path.write_text(json.dumps(tree))
    return f"config.json: {what}"


def forged_header(folder: Path, outside: Path, draw: random.Random) -> str:
    """The header of the weights tells of other sizes; with a digest that fits, as far as there can be one."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    kind = draw.choice(("length", "number", "shape", "names"))
    match kind:
        case "length":
            path.unlink()
            path.write_bytes(struct.pack("<Q", draw.choice([2**63, 2**40, 10**8 + 1])) + data[8:])
            return "a header of another length"
        case "number":
            _change(header, draw, int, _NUMBERS)
        case "shape":
            header[draw.choice(sorted(header))] = {"dtype": "F32", "shape": [2**31, 0, 2**31], "data_offsets": [0, 0]}
        case "names":
            header |= {f"encoder.{number}.weight": header[min(header)] for number in range(10**4)}
    text = json.dumps(header).encode()
    path.unlink()
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)
    _fit_digest(folder)
    return f"header of the weights: {kind}"


def larger_network(folder: Path, outside: Path, draw: random.Random) -> str:
    """config.json and the digest agree, and tell of a network far larger than its weights."""
    path = folder / "config.json"
    text = path.read_text()
    names = [*re.findall(r'"(vocab_size|embedding_dim|hidden_dim|residual_blocks|depth|stem|latent|phis)":', text)]
    name, value = draw.choice(sorted({*names})), draw.choice([10**5, 10**6, 10**9, 2**62]) // 32 * 32
    path.unlink()
    path.write_text(re.sub(rf'"{name}": *\d+', f'"{name}": {value}', text))
    return f"{name} = {value:,}"


def deep_network(folder: Path, outside: Path, draw: random.Random) -> str:
    """Lists of config.json are long: levels, scales."""
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    lists = [place for place in _list_places(tree) if place]
    if not lists:
        return larger_network(folder, outside, draw)
    *above, last = draw.choice(lists)
    found = _at(tree, above)[last]
    longer = draw.choice([100, 10**4])
    _at(tree, above)[last] = [*range(1, longer)] if last == "patch_nums" else [found[0]] * longer
    path.unlink()
    path.write_text(json.dumps(tree))
    return f"{'.'.join(map(str, [*above, last]))} of {longer:,}"


def _list_places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(tree, list) and tree:
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _list_places(value, (*path, key))


def _fit_digest(folder: Path) -> None:
    """Give config.json the digest of the weights that are there, if they can have one."""
    from pipeline.models.folder.weights import weights_digest

    try:
        digest = weights_digest((folder / "model.safetensors").read_bytes())
    except ValueError:
        return
    tree = json.loads((folder / "config.json").read_text())
    tree["identity"]["weights"] = digest
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(tree))


TOKENIZERS: dict[str, Forgery] = {
    "a file is none": odd_file,
    "a number in config.json": forged_setting,
    "a text in config.json": forged_text,
    "header of the weights": forged_header,
    "a network larger than its weights": larger_network,
    "long lists": deep_network,
}
"""By kind."""
