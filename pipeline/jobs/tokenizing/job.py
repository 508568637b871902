"""The tokenization job: source shards of a configuration into committed parts of a store.

Any number of processes may run it on one store, started together or not, on one machine or many. They
share nothing but the store, join no process group, and may come and go at any time.
"""

import errno
import random
import time

from pipeline.claims import Claims
from pipeline.config import Config
from pipeline.errors import ConfigError, StoreError, VqtokError
from pipeline.files import Files, is_url
from pipeline.files.refusals import Refusal
from pipeline.jobs.bounds import in_all
from pipeline.jobs.missing import summed
from pipeline.jobs.plan import Plan, is_finished, job_identity, refuse_unwritable, with_listings
from pipeline.jobs.tokenizing.checked import checked_plan, refuse_other_classes
from pipeline.jobs.work.claim_queue import ClaimQueue
from pipeline.jobs.work.cores import IdleCores
from pipeline.jobs.work.execution import refuse_other_execution
from pipeline.jobs.work.failures import end_hung_process, end_process_without_gpu, noting_the_end
from pipeline.jobs.work.image_size import taking
from pipeline.jobs.work.lanes import tokenize_all
from pipeline.jobs.work.leftovers import MANIFEST, clear_leftovers, put_in_order
from pipeline.jobs.work.machine import this_machine
from pipeline.jobs.work.pauses import Pauses
from pipeline.jobs.work.precision import refuse_slow_precision
from pipeline.jobs.work.progress import JobProgress
from pipeline.jobs.work.result import TokenizeResult
from pipeline.jobs.work.shard import Work
from pipeline.jobs.work.siblings import current_siblings
from pipeline.jobs.work.tokenizer import tokenizer_of
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.models.tokenizers.registry import trained_image_size
from pipeline.printing import say
from pipeline.process.shortage import is_thread_shortage, what_helps
from pipeline.process.signals import terminable
from pipeline.source.classes.finding import find_classes, labels_of
from pipeline.source.classes.names import describe_classes
from pipeline.source.images.transform import ImageTransform
from pipeline.store.arrays.codebook import table_digest
from pipeline.store.schema.birth import (
    CLASSES,
    DIGESTS,
    VIEWS,
    Birth,
    CodebookRecord,
    create_or_compare,
    smallest_token_dtype,
)
from pipeline.store.schema.commits import committed_parts, read_commits
from pipeline.store.schema.failures import JOB, clear_failure
from pipeline.store.schema.manifest import (
    Manifest,
    is_current,
    read_manifest,
    refuse_lost_arrays,
    refuse_other_attempts,
    write_manifest,
)
from pipeline.store.schema.snapshot import make_manifest
from pipeline.store.writing.hierarchy import prepare_hierarchy, rule_digest
from pipeline.world import World, current_world, describe_unusable_gpu, describe_unused_gpus

# How soon to look again for the manifest that another process makes: in a small store it takes a moment. The pauses
# grow, for with many commits to read it takes a while.
_POLL_SECONDS = 0.1
# Errors that say that a folder cannot be made there, and not that the disk is full.
_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)


def run(
    config: Config,
    *,
    plan: Plan | None = None,
    wait: bool = True,
    allow_execution_change: bool = False,
    allow_other_sources: bool = False,
    allow_slow: bool = False,
    check_files: bool = False,
    show_progress: bool = True,
) -> TokenizeResult:
    """Commit every pending source shard that nobody else is working on; finish with the manifest.

    Args:
        plan: `checked_plan` of this configuration, where it is known and not finished: so that nothing is listed
            and compared twice.
        wait: at the end wait for the claims of other processes, and take over those that die.
        allow_execution_change: go on with another precision, device, batch size or library version than
            the store's parts were made with.
        allow_other_sources: go on where all that is committed is of other source shards.
        allow_slow: go on with a precision that the processor has no instructions for.
        check_files: compare size and time of each file of a folder with those of its commit.

    Raises VqtokError for what concerns the whole job; a source shard that cannot be tokenized is recorded,
    left pending and named in the result.
    """
    if plan is None:
        plan = checked_plan(config, allow_other_sources, check_files)
        if is_finished(plan, config):
            put_in_order(plan)
            return TokenizeResult(
                store=plan.store.root,
                planned=len(plan.shards),
                committed=len(plan.shards),
                is_empty=plan.has_no_rows,
            )
    try:
        return _work_on(plan, config, wait, allow_execution_change, allow_slow, show_progress)
    except OSError as error:  # full, read-only, gone: sources and tokenizers have errors of their own
        said = f"{plan.store.root}: {error}; {what_helps(error)}, then run again"
        raise StoreError(f"{error if isinstance(error, Refusal) else said}: what is committed stays") from error
    except RuntimeError as error:
        if not is_thread_shortage(error):
            raise
        raise VqtokError(
            f"{error}: give the process more memory (ulimit -v), allow more threads (ulimit -u), or start it on fewer "
            "CPU cores (taskset -c), for each has a thread; then run again: what is committed stays"
        ) from error


def _work_on(
    plan: Plan, config: Config, wait: bool, allow_execution_change: bool, allow_slow: bool, show_progress: bool
) -> TokenizeResult:
    refuse_unwritable(plan.store)
    world = current_world()
    for line in filter(None, (describe_unused_gpus(world), describe_unusable_gpu())):
        say(f"vqtok: {line}", error=True)
    tokenizer = tokenizer_of(config, world)
    ImageTransform(config.image)  # refuses a decoder that is not here, before a store is born that is bound to it
    classes = plan.birth.classes if plan.birth else find_classes(config.source, plan.shards)
    birth = make_birth(config, tokenizer, classes)
    if not allow_slow:
        refuse_slow_precision(config, tokenizer, world.device)
    birth = _bear(plan.store, birth)
    refuse_other_classes(plan.store, config.source, birth.classes)
    with noting_the_end(plan.store):
        return _work_in(plan, config, world, tokenizer, birth, wait, allow_execution_change, show_progress)


def _work_in(
    plan: Plan,
    config: Config,
    world: World,
    tokenizer: Tokenizer,
    birth: Birth,
    wait: bool,
    allow_execution_change: bool,
    show_progress: bool,
) -> TokenizeResult:
    """Work in a store that is there."""
    plan = with_listings(plan, config)
    labels = labels_of(config.source, birth.classes, plan.shards)
    if world.is_main:
        if other := describe_another_size(config):
            say(f"vqtok: {other}", error=True)
        if birth.classes and config.source.classes is None:
            say(
                f"vqtok: {describe_classes(birth.classes)}; another order is that of a file in source.classes, in a "
                "store of its own",
                error=True,
            )
    with (
        terminable(),
        Claims(plan.store, config.tokenize.claim_timeout) as claims,
        this_machine(
            config,
            tokenizer,
            world,
            lambda hang: end_hung_process(plan.store, claims, hang),
            lambda error, shard: end_process_without_gpu(error, shard, plan.store, claims),
        ) as machine,
    ):
        if not allow_execution_change:
            refuse_other_execution(plan, machine.execution)
        prepare_hierarchy(plan.store, birth, tokenizer.codebook.table, tokenizer.rule_arrays)
        if siblings := current_siblings():
            siblings.begin_work()
        with JobProgress(plan, enabled=show_progress and world.is_main) as progress:
            work = Work(config, plan.store, birth, machine, labels, world.is_main)
            result = _tokenize(plan, work, _queue(plan, claims, world, wait, work), progress)
        if result.complete:
            _finish(plan, birth, claims, wait)
            if result.images == result.rejected:
                manifest = read_manifest(plan.store, birth)
                result = result.model_copy(update={"is_empty": manifest is not None and not manifest.written})
    return result


def _bear(store: Files, birth: Birth) -> Birth:
    """Create the store with this birth record, or compare it with that of the store; the record that counts.

    Raises ConfigError for a place that lets nobody create anything.
    """
    try:
        return create_or_compare(store, birth)
    except OSError as error:
        if is_url(store.root) or error.errno not in _NO_PLACE:
            raise
        raise ConfigError(f"tokenize.store: {store.root} cannot be written: {error}") from error


def describe_another_size(config: Config) -> str | None:
    """A line for people where images of another size are tokenized than the tokenizer was trained on."""
    path, here = config.tokenizer.path, config.image.size
    there = trained_image_size(path, config.tokenizer.storage)
    if there is None or there == here:
        return None
    return (
        f"{path}: was trained at an image.size of {there[0]} x {there[1]} pixels, and these images have "
        f"{here[0]} x {here[1]}: its codes may fit them less well"
    )


def make_birth(config: Config, tokenizer: Tokenizer, classes: tuple[str, ...] | None = None) -> Birth:
    """What a store of this configuration is born as.

    Args:
        classes: names of the labels, where somebody tells them.

    Raises ConfigError for a size that the tokenizer cannot take.
    """
    codebook, rule, views = tokenizer.codebook, tokenizer.rule, config.image.num_views
    assert set(rule.arrays) == tokenizer.rule_arrays.keys(), "a store without them could not be read"
    size, called = config.image.size, f"the tokenizer in {config.tokenizer.path}"
    geometry = taking(size, lambda: tokenizer.geometry(size), tokenizer.downsampling, called)
    return Birth(
        features=(DIGESTS, *([VIEWS] if views else []), *([CLASSES] if classes else [])),
        identity=job_identity(config),
        geometry=geometry,
        codebook=CodebookRecord(
            kind=codebook.kind,
            vocab_size=codebook.vocab_size,
            embedding_dim=codebook.embedding_dim,
            levels=codebook.levels,
            sha256=None if codebook.table is None else table_digest(codebook.table),
        ),
        var_input=rule.name,
        rule_digest=rule_digest(tokenizer.rule_arrays),
        views=views,
        token_dtype=smallest_token_dtype(codebook.vocab_size),
        fields=tuple(sorted(config.source.keep)),
        classes=classes,
        codec=config.tokenize.codec,
    )


def _queue(plan: Plan, claims: Claims, world: World, wait: bool, work: Work) -> ClaimQueue:
    draw = random.Random(f"{claims.owner} {world.rank}")
    begin = world.rank % world.size / world.size
    return ClaimQueue(plan.store, claims, plan.shards, plan.committed, begin, draw, wait, work.stopped)


def _tokenize(plan: Plan, work: Work, queue: ClaimQueue, progress: JobProgress) -> TokenizeResult:
    """Work off what the queue has for this process."""
    started, idle = time.monotonic(), IdleCores(work.machine.threads["cores"])
    done = tokenize_all(progress.of(queue), work)
    return TokenizeResult(
        store=plan.store.root,
        planned=len(plan.shards),
        committed=queue.count_committed(),
        failures=done.failures,
        images=done.images,
        rejected=done.rejected,
        unlabelled=done.unlabelled if work.config.source.label else 0,
        fields_missing=summed(done.missing),
        seconds=time.monotonic() - started,
        loads=in_all(done.loads),
        idle=idle.share(),
    )


def _finish(plan: Plan, birth: Birth, claims: Claims, wait: bool) -> None:
    """See to the manifest: one process reads all commits for it while the others wait, unless they may not."""
    while wait and not claims.acquire(MANIFEST):
        pauses, looked = Pauses(_POLL_SECONDS), time.monotonic()
        while claims.is_live(MANIFEST):
            time.sleep(pauses.next_s(looked))
            looked = time.monotonic()
        manifest = read_manifest(plan.store, birth)
        if is_current(manifest, _committed(plan, manifest), plan.planned):
            return
    committed = bring_up_to_date(plan, birth)
    clear_failure(plan.store, JOB)
    claims.release(MANIFEST)
    clear_leftovers(plan.store, committed)


def bring_up_to_date(plan: Plan, birth: Birth) -> set[str]:
    """Bring the manifest up to date with the commits; the parts that are committed.

    Harmless when several processes do it. Raises CorruptStore as `refuse_other_attempts`, and for
    damaged records and lost arrays.
    """
    manifest = read_manifest(plan.store, birth)
    committed = _committed(plan, manifest)
    if is_current(manifest, committed, plan.planned):
        return committed
    commits = read_commits(plan.store, sorted(committed))
    if manifest:
        refuse_other_attempts(plan.store, manifest, commits)
    refuse_lost_arrays(plan.store, commits)
    generation = manifest.generation + 1 if manifest else 1
    made = make_manifest(commits, sorted(plan.planned), birth.codebook.vocab_size, generation, manifest)
    write_manifest(plan.store, birth, made)
    return committed


def _committed(plan: Plan, manifest: Manifest | None) -> set[str]:
    """All committed parts, also those that a list which lags behind does not have yet."""
    known = {part.part for part in manifest.parts} if manifest else set()
    return committed_parts(plan.store, plan.planned | known)
