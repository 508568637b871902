"""`vqtok report`: what is in a finished store, how good it is, and how to load it.

STORE-report/
  report.html, reconstructions.png    for people
  report.json                         the same figures; written last
"""

from pathlib import Path

from pydantic import ValidationError

from pipeline import __version__
from pipeline.config import Config
from pipeline.errors import IncompleteStore
from pipeline.files import is_url
from pipeline.files.regular import read_regular
from pipeline.jobs.plan import job_identity, refuse_other_identity, store_of
from pipeline.jobs.reporting.figures import Report
from pipeline.records import digest_of
from pipeline.store.schema.birth import is_born, read_birth
from pipeline.store.schema.manifest import read_manifest


def run(config: Config) -> Report:
    """Report on a finished store, or read the report on it that is there already.

    Raises IncompleteStore for an unfinished store, IdentityMismatch for a configuration of other tokens,
    ConfigError when no source shard of the configuration is in the store, StoreError for a store with features that
    this version does not know.
    """
    files = store_of(config)
    manifest = read_manifest(files, read_birth(files)) if is_born(files) else None
    if manifest is None:
        raise IncompleteStore(f"{config.tokenize.store}: not finished; run vqtok tokenize first")
    refuse_other_identity(files, config)
    folder, basis = report_folder(config.tokenize.store), basis_of(config)
    try:
        report = Report.model_validate_json(read_regular(folder / "report.json"))
        if (report.content_digest, report.basis) == (manifest.content_digest, basis) and not report.damaged:
            return _of_this_store(report, config, folder)
    except (OSError, ValidationError):
        pass  # none yet, or of another version
    from pipeline.jobs.reporting.making import make_report  # importing torch takes seconds

    return make_report(config, folder, basis)


def _of_this_store(report: Report, config: Config, folder: Path) -> Report:
    """A report that was found, with the places that this configuration says: they are printed for pasting, and the
    file may come from a stranger, with the store."""
    picture = places_of(folder)["picture"] if report.picture else None
    return report.model_copy(update={"store": config.tokenize.store, **places_of(folder), "picture": picture})


def places_of(folder: Path) -> dict[str, str]:
    """Paths of the files of a report for people."""
    return {"html": str(folder / "report.html"), "picture": str(folder / "reconstructions.png")}


def basis_of(config: Config) -> str:
    """Digest of what decides the figures of a given store. Raises TokenizerError."""
    return digest_of(
        {
            "version": __version__,
            "identity": job_identity(config),
            "source": config.source.model_dump(mode="json"),
            "image": config.image.model_dump(mode="json"),
            "store": config.tokenize.store,
            "batch_size": config.tokenize.batch_size,
        }
    )


def report_folder(store: str) -> Path:
    """Where the report on a store goes: beside it, or into the current folder where the store is a URL."""
    place = store.rstrip("/")
    return Path(f"{place.rpartition('/')[2] if is_url(place) else place}-report")
