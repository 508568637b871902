"""Exporting a store: write what is missing of its pieces, and give all of them their name."""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pipeline.errors import IncompleteStore, StoreError
from pipeline.jobs.exporting.place import Place, place_for
from pipeline.jobs.exporting.processes import write_pieces
from pipeline.jobs.exporting.request import Request
from pipeline.jobs.exporting.work import Work
from pipeline.process.signals import terminable
from pipeline.records import JSON
from pipeline.storage import Storage
from pipeline.store.reader import TokenStore


@dataclass(frozen=True)
class ExportResult:
    """What came of it."""

    out: Path
    mark: JSON
    """As in `export.json`."""

    def __str__(self) -> str:
        mark = self.mark
        views = {"all": "all views of each row", "rows": "each view as a row"}.get(
            mark["view"], f"view {mark['view']} of each row" if mark["store"]["views"] > 1 else ""
        )
        lines = [
            f"{self.out}: {mark['rows']:,} rows, format {mark['format']}, {mark['order']} order"
            + (views and f", {views}")
        ]
        if mark["unlabelled"]:
            lines.append(f"{mark['unlabelled']:,} of them have no label (-1)")
        if mark["format"] == "llamagen" and mark["view"] == "all" and "flip" not in str(self.out):
            lines.append(
                "LlamaGen takes one of several views only from a path with `flip` in it: rename the folder for it"
            )
        return "\n".join(lines)


def run(
    store: str,
    out: str | Path,
    request: Request,
    processes: int = 1,
    show_progress: bool = False,
    storage: Storage | None = None,
) -> ExportResult:
    """Make the folder `out`, which appears whole or not at all. Run again, it goes on where it was interrupted.

    Args:
        store: folder or URL of a token store.
        storage: how a URL is reached.

    Raises ConfigError for an `out` that cannot be and for what the format has no place for, IncompleteStore unless
    `request.partial`, StoreError for a store that cannot be read or has no rows, ExportError for a full disk.
    """
    work = Work(_open(store, request.partial, storage), request)
    with terminable(), place_for(out, store, work.birth) as place:
        work.format.prepare(place)
        _write(work, place, processes, show_progress)
        done = place.done()
        mark = work.finish(place, [done[piece] for piece in range(len(work.pieces))])
        place.publish(mark)
    return ExportResult(Path(out), mark)


def _open(store: str, partial: bool, storage: Storage | None) -> TokenStore:
    try:
        opened = TokenStore(store, partial=partial, storage=storage)
    except IncompleteStore:
        raise IncompleteStore(
            f"{store}: source shards are still pending (no manifest yet); run the same vqtok tokenize again to finish, "
            "or export what is committed with --partial"
        ) from None
    if not len(opened):
        raise StoreError(f"{store}: has no rows to export")
    return opened


def _write(work: Work, place: Place, processes: int, show_progress: bool) -> None:
    done = place.done().keys()
    pending = [piece for piece in range(len(work.pieces)) if piece not in done]
    there = sum(work.count(piece) for piece in done)
    with tqdm(
        desc="export",
        total=work.contents.count,
        initial=there,
        unit=" rows",
        unit_scale=True,
        disable=not show_progress,
    ) as bar:
        for piece, result in write_pieces(work, place, pending, processes):
            place.note(piece, result)
            bar.update(result["rows"])
