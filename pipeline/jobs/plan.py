"""What a configuration asks for, and what of it is done. Imports neither torch nor Zarr."""

import contextlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import ConfigError, IdentityMismatch, VqtokError
from pipeline.files import Files, LocalFiles, files_at, is_url
from pipeline.files.damage import damaged
from pipeline.files.places import why_unlistable, why_unreadable, why_unwritable
from pipeline.models.tokenizers.registry import layout_name, tokenizer_identity, told_identity
from pipeline.records import JSON, SourceShard
from pipeline.source.classes.names import classes_difference, source_identity
from pipeline.source.find import find_source_shards, refuse_among_images
from pipeline.source.folders.listings import Listings, Mode
from pipeline.source.shards.identity import is_gone
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth, is_born, read_birth, refuse_unknown_features
from pipeline.store.schema.commits import committed_parts
from pipeline.store.schema.groups import has_root
from pipeline.store.schema.identity import identity_differences
from pipeline.store.schema.manifest import Manifest, is_current, read_manifest


@dataclass(frozen=True)
class Plan:
    """Pending work is what the configuration names and no commit record does: that is all of resume."""

    store: Files
    shards: list[SourceShard]
    committed: set[str]
    """All committed parts, planned or not."""
    listings: Listings = field(default_factory=Listings, compare=False, repr=False)
    """Which files of folders make which source shards, as far as that is decided."""
    remarks: tuple[str, ...] = ()
    """What a user should hear of the source."""

    @property
    def pending(self) -> list[SourceShard]:
        """Planned source shards without a commit, sorted by part."""
        return [shard for shard in self.shards if shard.part not in self.committed]

    @property
    def planned(self) -> set[str]:
        """Parts of all planned source shards."""
        return {shard.part for shard in self.shards}

    @cached_property
    def birth(self) -> Birth | None:
        """The store's birth, read at the first call and kept; None where there is no store. Raises as `read_birth`."""
        return read_birth(self.store) if is_born(self.store) else None

    @cached_property
    def manifest(self) -> Manifest | None:
        """The store's manifest, read at the first call and kept; None before the first completion.

        Raises CorruptStore for a damaged one, and as `birth` does.
        """
        return read_manifest(self.store, self.birth) if self.birth else None

    @property
    def has_no_rows(self) -> bool:
        """Whether the store is complete and has none. Raises as `manifest` does."""
        return self.manifest is not None and not self.manifest.written

    def __str__(self) -> str:
        pending = self.pending
        if not pending:
            return f"{self.store.root}: all {len(self.shards)} source shards are committed"
        size = sum(shard.bytes or 0 for shard in pending)
        return f"{self.store.root}: {len(pending)} of {len(self.shards)} source shards are pending, {size:,} bytes"


def make_plan(config: Config) -> Plan:
    """Expand the source patterns and list the commits.

    Files of folders that are in no listing of the store are planned as they would be listed.

    Raises ConfigError, and StoreError for a store with features that this version does not know.
    """
    store = store_of(config)
    refuse_unknown_features(store)
    return _planned(store, config, Mode.LOOK)


def plan_without_source(config: Config) -> Plan:
    """A plan of no source shard: what is committed, wherever its source is now. Raises as `make_plan`."""
    store = store_of(config)
    refuse_unknown_features(store)
    return Plan(store, [], committed_parts(store))


def with_late_commits(plan: Plan) -> Plan:
    """The same plan, each part that seems to be pending asked for: the list of commits may lag behind."""
    return replace(plan, committed=committed_parts(plan.store, plan.planned))


def with_listings(plan: Plan, config: Config) -> Plan:
    """The same plan, with the files of each planned source shard written down in the store.

    Raises as `make_plan`, and OSError.
    """
    if any(shard.listing is not None and not shard.listing.is_kept for shard in plan.shards):
        plan = _planned(plan.store, config, Mode.KEEP)
    plan.listings.write_parts()
    return plan


def spread(shards: Sequence[SourceShard], count: int) -> list[SourceShard]:
    """At most `count` of them, the first and others as far apart as they can be."""
    step = max(1.0, len(shards) / count)
    return [shards[int(number * step)] for number in range(min(count, len(shards)))]


def source_shards_of(store: Files, config: Config) -> list[SourceShard]:
    """The source shards of a configuration, as a store has them listed. Raises ConfigError."""
    return _planned(store, config, Mode.LOOK).shards


def _planned(store: Files, config: Config, mode: Mode) -> Plan:
    listings, committed = Listings(store, mode), committed_parts(store)
    shards = [
        shard
        for shard in find_source_shards(config.source, listings)
        # Originals may be deleted once they are tokenized, as whole tars may.
        if not (shard.part in committed and is_gone(shard))
    ]
    if isinstance(store, LocalFiles) and not is_born(store):
        refuse_among_images(str(store.path(".")), shards, "tokenize.store")
    plan = Plan(store, shards, committed, listings, tuple(listings.remarks))
    _refuse_lost_listings(plan)
    return plan


def _refuse_lost_listings(plan: Plan) -> None:
    """Raise CorruptStore where files would be listed a second time, in other source shards than are committed."""
    new = [shard for shard in plan.shards if shard.listing is not None and not shard.listing.is_kept]
    lost = {shard.path for shard in new if shard.part in plan.committed}
    for folder in {shard.listing.folder for shard in new if shard.listing is not None}:
        known = (part.sources[0].path for part in plan.manifest.parts) if plan.manifest else ()
        lost |= {path for path in known if path.startswith(f"{folder}/#")} - plan.listings.listed.get(folder, set())
    if lost:
        raise damaged(
            plan.store,
            names.LISTINGS,
            f"the listing of {min(lost)} is gone, and it is committed; restore it from a copy",
        )


def store_of(config: Config) -> Files:
    """Where the store is or will be. Raises ConfigError for a place that cannot be one."""
    store = files_at(config.tokenize.store, config.tokenize.storage)
    reason = why_unreadable(store.path(".")) if isinstance(store, LocalFiles) else why_unlistable(store.root)
    if reason:
        raise ConfigError(f"tokenize.store: {store.root} cannot be a store: {reason}")
    return store


def refuse_unwritable(store: Files) -> None:
    """Raise ConfigError for a place in which no store can be written, as far as it can be told without writing."""
    if store.root.startswith("hf://"):
        raise ConfigError(
            f"tokenize.store: {store.root}: the hub is for reading here; name a folder, or s3://, gs://, az://"
        )
    if isinstance(store, LocalFiles) and (reason := why_unwritable(store.path("."))):
        raise ConfigError(f"tokenize.store: {store.root} cannot be written: {reason}")
    if isinstance(store, LocalFiles):
        for folder in map(store.path, names.WRITTEN):
            if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):  # of another user, in a store of several
                raise ConfigError(
                    f"tokenize.store: {store.root} cannot be written: no permission to write into {folder}; its owner "
                    f"can give it for all folders of the store (chmod -R g+w {shlex.quote(store.root)})"
                )


def job_identity(config: Config) -> JSON:
    """All that decides which tokens a configuration makes.

    Raises TokenizerError, and ConfigError for a layout that the tokenizer cannot give.
    """
    return {
        "tokenizer": tokenizer_identity(config.tokenizer.path, config.tokenizer.storage),
        "image": config.image.identity(),
        "layout": layout_name(config.tokenizer.path, config.tokenize.layout, config.tokenizer.storage),
        "source": source_identity(config.source),
    }


def differences_told(config: Config, birth: Birth) -> list[str]:
    """Every field in which a configuration asks for other tokens than a store holds, as far as small files tell.

    A tokenizer that is not on this machine, and weights, are left to who tokenizes.
    """
    ours: JSON = {"image": config.image.identity()}
    with contextlib.suppress(VqtokError, OSError):
        ours["source"] = source_identity(config.source)
    if not is_url(folder := config.tokenizer.path):
        with contextlib.suppress(VqtokError, OSError):
            ours["tokenizer"] = told_identity(Path(folder.removeprefix("file://")))
            ours["layout"] = layout_name(folder, config.tokenize.layout)
    told = identity_differences(ours, {key: value for key, value in birth.identity.items() if key in ours})
    with contextlib.suppress(VqtokError, OSError):
        if difference := classes_difference(config.source, birth.classes):
            told.append(f"source.classes: {difference}")
    return told


def is_finished(plan: Plan, config: Config) -> bool:
    """Whether all is committed, the manifest says so, and the configuration is still that of the store; and whether
    readers that know only Zarr find it.

    Raises TokenizerError for a folder that is no tokenizer, finished or not.
    """
    identity = job_identity(config)
    return (
        not plan.pending
        and is_current(plan.manifest, plan.committed, plan.planned)
        and has_root(plan.store)
        and plan.birth is not None
        and not identity_differences(identity, plan.birth.identity)
    )


def refuse_other_identity(store: Files, config: Config) -> None:
    """Raise IdentityMismatch, naming every field that differs, when a store holds other tokens than asked for."""
    lines = identity_differences(job_identity(config), read_birth(store).identity)
    if lines:
        raise IdentityMismatch(f"{store.root}: the configuration is not that of the store (there): {'; '.join(lines)}")
