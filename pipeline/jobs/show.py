"""One sample of a store by its key: its tokens and where it came from, or why it was rejected."""

import json

from pipeline.errors import StoreError
from pipeline.files import files_at
from pipeline.jobs.rows import read_rejects
from pipeline.store.birth import read_birth
from pipeline.store.commits import committed_parts, read_commit
from pipeline.store.parts import Part


def run(store: str, key: str) -> str:
    """Every place where `key` stands, as text: keys may repeat across source shards.

    Raises StoreError when neither a row nor a reject has the key.
    """
    files = files_at(store)
    birth = read_birth(files)
    found = []
    for name in sorted(committed_parts(files)):
        commit = read_commit(files, name)
        source = commit.sources[0].path
        part = Part(files, birth, name, commit.attempt, commit.written)
        if commit.written and key in part.keys:
            row = part.keys.index(key)
            fields = {field: _text(part.field(field)[row]) for field in birth.fields}
            tokens = part.tokens(slice(row, row + 1))[0].tolist()
            lines = [f"{key}: row {row} of {name}, from {source}", f"label {int(part.labels[row])}"]
            lines += [f"{field} {value}" for field, value in fields.items()]
            start = 0
            for block, length in enumerate(birth.geometry.block_lengths):
                lines.append(f"block {block} {json.dumps(tokens[start : start + length])}")
                start += length
            found.append("\n".join(lines))
        found += [
            f"{key}: rejected, sample {reject.index} of {source}: {reject.stage}: {reject.reason}"
            for reject in (read_rejects(files, name, commit.attempt) if commit.rejected else [])
            if reject.key == key
        ]
    if not found:
        raise StoreError(f"{store}: no row and no reject has the key {key!r}; its source shard may be pending")
    return "\n".join(found)


def _text(data: bytes | None) -> str:
    return "(none)" if data is None else data.decode("utf-8", "backslashreplace")
