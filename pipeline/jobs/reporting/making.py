"""Making a report: figures from the manifest, and images rebuilt from the store beside their originals."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import ConfigError, StoreError
from pipeline.files import LocalFiles, files_at, is_url
from pipeline.files.each import read_sound
from pipeline.files.places import why_unwritable
from pipeline.jobs.missing import summed
from pipeline.jobs.originals import images_of_rows
from pipeline.jobs.pictures import PICTURED, comparison_png, evenly_spaced
from pipeline.jobs.plan import source_shards_of
from pipeline.jobs.rejects import read_rejects
from pipeline.jobs.reporting.figures import Report
from pipeline.jobs.reporting.page import report_page
from pipeline.jobs.tally import Tally
from pipeline.models.tokenizers.pixels import to_pixels
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.process.threads import cpu_threads, one_thread
from pipeline.source.batches import samples_of_batch
from pipeline.store.reader import TokenStore
from pipeline.store.schema import names
from pipeline.store.schema.commits import read_commit
from pipeline.store.schema.counts import unpack_counts
from pipeline.world import current_world

# Parts of which one batch is rebuilt for PSNR and pictures, at most.
_PARTS_REBUILT = 8


def make_report(config: Config, folder: Path, basis: str) -> Report:
    """Read the store back, rebuild some of its images, and write the files of the report to `folder`.

    Args:
        basis: digest of all that the figures depend on besides the store.

    Raises ConfigError when no source shard of the configuration is in the store, or the folder cannot be written;
    StoreError for a link.
    """
    if folder.is_symlink():  # it comes beside the store, perhaps out of the archive that the store came in
        raise StoreError(f"{folder}: is a link, and a report is written into no other folder; delete the link")
    if reason := why_unwritable(folder.absolute()):
        place = "in the working folder, as the store is a URL" if is_url(config.tokenize.store) else "beside the store"
        raise ConfigError(f"{folder}: the report, which goes there, {place}, cannot be written: {reason}")
    store = TokenStore(config.tokenize.store, storage=config.tokenize.storage)
    output = LocalFiles(folder)
    uses_K = torch.from_numpy(unpack_counts(store.manifest.code_counts, store.vocab_size, names.MANIFEST))
    damage: list[str] = []
    rebuilt = _rebuild(config, store, damage)
    png, psnr = None, None
    if rebuilt is not None:
        originals_B3HW, reconstructions_B3HW = rebuilt
        pictured = evenly_spaced(PICTURED, len(originals_B3HW))
        png = comparison_png(originals_B3HW[pictured], reconstructions_B3HW[pictured])
        output.put("reconstructions.png", png)
        tally = Tally.empty(store.vocab_size, torch.device("cpu"))
        tally.add(originals_B3HW, reconstructions_B3HW, torch.empty(0, dtype=torch.int64))
        psnr = tally.psnr
    report = Report(
        content_digest=store.content_digest,
        basis=basis,
        store=config.tokenize.store,
        html=str(folder / "report.html"),
        picture=str(folder / "reconstructions.png") if png else None,
        written=store.manifest.written,
        rejected=store.manifest.rejected,
        unlabelled=sum(part.unlabelled for part in store.manifest.parts) if config.source.label else 0,
        missing=_missing(config, store, damage),
        reject_reasons=_reject_reasons(config, store, damage),
        tokens=int(uses_K.sum()),
        bytes=sum(part.bytes for part in store.manifest.parts),
        vocab_size=store.vocab_size,
        codes_used=int((uses_K > 0).sum()),
        entropy_bits=_entropy_bits(uses_K),
        psnr=psnr,
        images_rebuilt=0 if rebuilt is None else len(rebuilt[0]),
        damaged=tuple(damage),
    )
    output.put("report.html", report_page(report, uses_K, png).encode())
    output.put("report.json", report.to_json())
    return report


def _rebuild(config: Config, store: TokenStore, damage: list[str]) -> tuple[Tensor, Tensor] | None:
    """Some originals and what the store's tokens decode to, each uint8 [N, 3, H, W] on the CPU; None if they cannot be.

    Damaged parts are left out, and named in `damage`.
    """
    if not store.geometry.decodable or not len(store):
        return None
    world = current_world()
    tokenizer = load_tokenizer(
        config.tokenizer.path, config.tokenize.layout, str(world.device), storage=config.tokenizer.storage
    )
    shards = {
        shard.part: shard
        for shard in source_shards_of(files_at(config.tokenize.store, config.tokenize.storage), config)
    }
    parts = [(number, part) for number, part in enumerate(store.manifest.parts) if part.part in shards and part.written]
    if not parts:
        raise ConfigError(f"source.shards: no image of these source shards is in {config.tokenize.store}")
    files = files_at(config.tokenize.store, config.tokenize.storage)
    originals, reconstructions = [], []
    with cpu_threads(world.cores), ThreadPoolExecutor(world.cores, "decode", one_thread) as decoders:
        for index in evenly_spaced(_PARTS_REBUILT, len(parts)):
            number, part = parts[index]
            rows = range(min(samples_of_batch(config.tokenize.batch_size, store.num_views), part.written))
            start = int(store.part_starts[number])
            views = np.arange(len(rows)) % store.num_views  # of each image one, so that all of them are seen
            try:
                batch = images_of_rows(config, files, shards[part.part], part, rows, decoders)
                tokens = store.read(slice(start, start + len(rows)), views)
            except StoreError as error:
                damage.append(str(error))
                continue
            shown = torch.from_numpy(np.arange(len(rows)) * store.num_views + views)
            originals.append(batch.img_B3HW[shown].cpu())  # from a GPU, where nvJPEG has left them
            reconstructions.append(_decode(tokenizer, store, tokens.to(world.device).idx_Bl))
    return (torch.cat(originals), torch.cat(reconstructions)) if originals else None


@torch.inference_mode()
def _decode(tokenizer: Tokenizer, store: TokenStore, idx_Bl: list[Tensor]) -> Tensor:
    """uint8 [B, 3, H, W]."""
    return to_pixels(tokenizer.decode(idx_Bl, store.geometry.grid), tokenizer.normalization).cpu()


def _missing(config: Config, store: TokenStore, damage: list[str]) -> dict[str, int]:
    """Rows without a kept field, by its name, as the commits say."""
    if not store.fields:
        return {}
    files, parts = (
        files_at(config.tokenize.store, config.tokenize.storage),
        [part.part for part in store.manifest.parts],
    )
    commits, unread = read_sound(lambda part: read_commit(files, part), parts)
    damage += [message for message in map(str, unread) if message not in damage]
    return summed(commit.missing for commit in commits)


def _reject_reasons(config: Config, store: TokenStore, damage: list[str]) -> dict[str, int]:
    files = files_at(config.tokenize.store, config.tokenize.storage)
    parts = {part.part: part for part in store.manifest.parts if part.rejected}
    rejects, unread = read_sound(lambda name: read_rejects(files, parts[name]), [*parts])
    damage += [message for message in map(str, unread) if message not in damage]
    reasons = Counter(f"{reject.stage}: {reject.reason}" for of_part in rejects for reject in of_part)
    return dict(reasons.most_common(20))


def _entropy_bits(uses_K: Tensor) -> float:
    shares = uses_K[uses_K > 0].double() / uses_K.sum()
    return float((shares * -shares.log2()).sum())
