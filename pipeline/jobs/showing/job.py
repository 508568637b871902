"""Look for the samples of a store that have a key.

Without torch.
"""

from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from pipeline.errors import StoreError
from pipeline.files import Files, files_at
from pipeline.files.each import read_each
from pipeline.jobs.showing.finding import Found, FoundReject, FoundRow, find_in_part
from pipeline.overlap import ordered_map
from pipeline.store.keys import SEARCH_THREADS
from pipeline.store.schema.birth import read_birth
from pipeline.store.schema.commits import committed_parts, read_commit
from pipeline.store.schema.manifest import PartRecord, read_manifest


def run(store: str, key: str, show_progress: bool = False) -> Found:
    """Look for every occurrence of `key` in all committed parts, rows as well as rejects.

    Reads the keys of every part, and of rows that have the key nothing but these rows.

    Raises StoreError where neither a row nor a reject has the key, CorruptStore for a damaged part.
    """
    files = files_at(store)
    birth = read_birth(files)
    parts, starts = _parts(files)

    def look_into(record: PartRecord) -> list[FoundRow | FoundReject]:
        return find_in_part(files, birth, record, key, starts.get(record.part))

    with ThreadPoolExecutor(SEARCH_THREADS, "look") as threads:
        looks = ordered_map(look_into, parts, threads, ahead=2 * SEARCH_THREADS)
        bar = tqdm(looks, "look", len(parts), leave=False, unit=" parts", disable=not show_progress)
        places = [place for look in bar for place in look]
    if not places:
        looked = sum(record.written + record.rejected for record in parts)
        raise StoreError(
            f"{files.root}: no sample has the key {key!r}, of {looked:,} in {len(parts):,} committed parts"
            f"{_hint(key)}; a source shard that is still pending may hold it (vqtok status)"
        )
    return Found(
        files.root,
        key,
        birth.geometry,
        rows=[place for place in places if isinstance(place, FoundRow)],
        rejects=[place for place in places if isinstance(place, FoundReject)],
    )


def _parts(files: Files) -> tuple[list[PartRecord], dict[str, int]]:
    """All committed parts, sorted, and the numbers of their first rows, as far as the manifest has them."""
    manifest = read_manifest(files)
    known = {record.part: record for record in manifest.parts} if manifest else {}
    starts, start = {}, 0
    for record in known.values():
        starts[record.part] = start
        start += record.written
    names = sorted(committed_parts(files))
    # One manifest is read much faster than all the commits.
    return read_each(lambda name: known.get(name) or PartRecord.of(read_commit(files, name), since=0), names), starts


def _hint(key: str) -> str:
    """For those who give the name of a file."""
    folder, slash, name = key.rpartition("/")
    stem, dot, _ = name.partition(".")
    return (
        f"; a key ends before the first dot of the file's name: try {folder + slash + stem!r}" if stem and dot else ""
    )
