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

    Raises StoreError where neither a row nor a reject has the key, with those that differ in `./` or an extension.
    """
    files = files_at(store, storage)
    birth = read_birth(files)
    damage: dict[str, None] = {}
    parts, starts = _parts(files, birth, damage)

    def look(key: str) -> list[FoundRow | FoundReject]:
        def look_into(record: PartRecord) -> list[FoundRow | FoundReject]:
            try:
                return find_in_part(files, birth, record, key, starts.get(record.part))
            except (OSError, VqtokError) as error:
                damage[str(error)] = None
                return []

        with ThreadPoolExecutor(SEARCH_THREADS, "look") as threads:
            looks = ordered_map(look_into, parts, threads, ahead=2 * SEARCH_THREADS)
            bar = tqdm(looks, "look", len(parts), leave=False, unit=" parts", disable=not show_progress)
            return [place for look in bar for place in look]

    places = look(key)
    if not places:
        looked = sum(record.written + record.rejected for record in parts)
        where = "1 committed part" if len(parts) == 1 else f"{len(parts):,} committed parts"
        near = [repr(other) for other in _near(key) if look(other)]
        raise StoreError(
            f"{files.root}: no sample has the key {key!r}, of {looked:,} in {where}"
            f"{'; there is ' + ', '.join(near) if near else ''}; a source shard that is still pending may hold it "
            "(vqtok status)" + "".join(f"\nnot all could be read: {error}" for error in damage)
        )
    return Found(
        files.root,
        key,
        birth.geometry,
        rows=[place for place in places if isinstance(place, FoundRow)],
        rejects=[place for place in places if isinstance(place, FoundReject)],
        damaged=list(damage),
    )


def _parts(files: Files, birth: Birth, damage: dict[str, None]) -> tuple[list[PartRecord], dict[str, int]]:
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
    damage |= dict.fromkeys(map(str, unread))
    return parts, starts


def _in_manifest(files: Files, birth: Birth, damage: dict[str, None]) -> tuple[PartRecord, ...]:
    try:
        manifest = read_manifest(files, birth)
    except CorruptStore as error:
        damage[str(error)] = None
        return ()
    return manifest.parts if manifest else ()


def _near(key: str) -> list[str]:
    """What else may be meant by the name of a file: tars have keys with `./` before them or without, which end before
    the first dot of the name; those of folders end before the last one."""
    plain = key.removeprefix("./")
    folder, slash, name = plain.rpartition("/")
    names = (name, name.partition(".")[0], name.rpartition(".")[0])
    keys = (f"{dot}{folder}{slash}{stem}" for stem in names if stem for dot in ("", "./"))
    return [other for other in dict.fromkeys(keys) if other != key]
