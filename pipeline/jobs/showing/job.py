"""Look for the samples of a store that have a key.

Without torch.
"""

from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from pipeline.errors import CorruptStore, StoreError, VqtokError
from pipeline.files import Files, files_at
from pipeline.files.each import read_sound
from pipeline.jobs.showing.finding import Found, FoundReject, FoundRow, find_in_part
from pipeline.overlap import ordered_map
from pipeline.storage import Storage
from pipeline.store.keys import SEARCH_THREADS
from pipeline.store.schema.birth import Birth, read_birth
from pipeline.store.schema.commits import committed_parts, read_commit
from pipeline.store.schema.manifest import PartRecord, read_manifest


def run(store: str, key: str, show_progress: bool = False, storage: Storage | None = None) -> Found:
    """Look for every occurrence of `key` in all committed parts, rows as well as rejects.

    Reads the keys of every part, and of rows that have the key nothing but these rows.

    Parts that cannot be read are named in what is returned.

    Raises StoreError where neither a row nor a reject has the key.
    """
    files = files_at(store, storage)
    birth = read_birth(files)
    damage: list[str] = []
    parts, starts = _parts(files, birth, damage)

    def look_into(record: PartRecord) -> list[FoundRow | FoundReject]:
        try:
            return find_in_part(files, birth, record, key, starts.get(record.part))
        except (OSError, VqtokError) as error:
            damage.append(str(error))
            return []

    with ThreadPoolExecutor(SEARCH_THREADS, "look") as threads:
        looks = ordered_map(look_into, parts, threads, ahead=2 * SEARCH_THREADS)
        bar = tqdm(looks, "look", len(parts), leave=False, unit=" parts", disable=not show_progress)
        places = [place for look in bar for place in look]
    if not places:
        looked = sum(record.written + record.rejected for record in parts)
        raise StoreError(
            f"{files.root}: no sample has the key {key!r}, of {looked:,} in {len(parts):,} committed parts"
            f"{_hint(key)}; a source shard that is still pending may hold it (vqtok status)"
            + "".join(f"\nnot all could be read: {error}" for error in damage)
        )
    return Found(
        files.root,
        key,
        birth.geometry,
        rows=[place for place in places if isinstance(place, FoundRow)],
        rejects=[place for place in places if isinstance(place, FoundReject)],
        damaged=damage,
    )


def _parts(files: Files, birth: Birth, damage: list[str]) -> tuple[list[PartRecord], dict[str, int]]:
    """All committed parts that can be read, sorted, and the numbers of their first rows, where the manifest has them.

    What cannot be read is added to `damage`.
    """
    known = {record.part: record for record in _in_manifest(files, birth, damage)}
    starts, start = {}, 0
    for record in known.values():
        starts[record.part] = start
        start += record.written

    def record_of(name: str) -> PartRecord:
        # One manifest is read much faster than all the commits.
        return known.get(name) or PartRecord.of(read_commit(files, name), since=0)

    parts, unread = read_sound(record_of, sorted(committed_parts(files, known)))
    damage += map(str, unread)
    return parts, starts


def _in_manifest(files: Files, birth: Birth, damage: list[str]) -> tuple[PartRecord, ...]:
    try:
        manifest = read_manifest(files, birth)
    except CorruptStore as error:
        damage.append(str(error))
        return ()
    return manifest.parts if manifest else ()


def _hint(key: str) -> str:
    """For those who give the name of a file."""
    folder, slash, name = key.rpartition("/")
    stem, dot, _ = name.partition(".")
    return (
        f"; a key ends before the first dot of the file's name: try {folder + slash + stem!r}" if stem and dot else ""
    )
