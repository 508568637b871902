"""Hostile images: each is decoded as documented or a reject with a reason, in bounded memory and time."""

import functools
import io
import json
import os
import pickle
import random
import re
import resource
import tarfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import pytest
import torch
import zarr
from fixtures_store import Job, jpeg, make_job, write_shard
from hostile import FAMILIES, MAX_PIXELS, Case, cases, pickled, valid_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import QUICK, encoded, in_a_child, sampled

from pipeline.config import ImageConfig
from pipeline.errors import BadImage
from pipeline.jobs.training.collection import count_samples
from pipeline.jobs.training.shards import training_shards
from pipeline.jobs.training.stream import Place, training_batches
from pipeline.source.images.decoding import PillowDecoder, decode_rgb
from pipeline.source.images.opening import PEAK_BYTES_PER_PIXEL
from pipeline.source.images.transform import ImageTransform
from pipeline.store import TokenStore

SECONDS = 20
"""For one case; the slowest takes one second on an idle core."""
SLACK_BYTES = 2**26
"""Beside the images: libraries, arenas, what libtiff and Python keep for themselves."""
FUZZ_EXAMPLES = int(os.environ.get("VQTOK_FUZZ_EXAMPLES", "60"))
"""For each kind of file."""

pytest_plugins = ["fixtures_store"]
needs_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


@functools.cache
def all_cases() -> dict[str, Case]:
    """By name; made when the first test needs them."""
    return {case.name: case for case in cases()}


class Outcome(NamedTuple):
    """What came of a case."""

    kind: str
    """`row`, or the name of the exception."""
    reason: str
    pixels: np.ndarray | None
    seconds: float


def outcome(case: Case, decode: Callable[[bytes, int], torch.Tensor] = decode_rgb) -> Outcome:
    started = time.monotonic()
    try:
        pixels = decode(case.data, MAX_PIXELS)
    except Exception as error:
        return Outcome(type(error).__name__, str(error), None, time.monotonic() - started)
    assert pixels.dtype == torch.uint8
    return Outcome("row", "", pixels.permute(1, 2, 0).numpy(), time.monotonic() - started)


def memory(name: str) -> int:
    """A figure of /proc/self/status in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def decode_in_little_memory(cases: Sequence[Case], log: Path) -> dict[str, Outcome]:
    """Outcomes of all cases, with no more address space than images of MAX_PIXELS need."""
    decode_rgb(encoded(Image.new("RGB", (8, 8)), "JPEG"), MAX_PIXELS)  # what is set up once
    before = resource.getrlimit(resource.RLIMIT_AS)
    found = {}
    with log.open("w") as names:
        for case in cases:
            limit = memory("VmSize") + PEAK_BYTES_PER_PIXEL * MAX_PIXELS + 4 * len(case.data) + SLACK_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
            print(case.name, file=names, flush=True)
            found[case.name] = outcome(case)
            resource.setrlimit(resource.RLIMIT_AS, before)
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What comes of all cases in a process of their own."""
    log = tmp_path_factory.mktemp("hostile") / "names"
    try:
        found: dict[str, Outcome] = in_a_child(decode_in_little_memory, list(all_cases().values()), log)
    except AssertionError as error:
        pytest.fail(f"{error} at {log.read_text().splitlines()[-1]}")
    return found


def test_there_are_at_least_500_cases_of_all_kinds() -> None:
    assert len(all_cases()) >= 500
    assert {name.partition(":")[0] for name in all_cases()} == {family.__name__ for family in FAMILIES}
    again = cases()
    assert len(all_cases()) == len(again)  # no name twice
    assert [case.data for case in again] == [case.data for case in all_cases().values()]  # the same every time


def complaint(case: Case, found: Outcome) -> str:
    """What is wrong with an outcome, or nothing."""
    if found.seconds > SECONDS:
        return f"took {found.seconds:.1f} s"
    if found.kind == "BadImage":
        if not case.reject:
            return f"rejected: {found.reason}"
        if case.reason not in found.reason:
            return f"rejected for another reason: {found.reason}"
        return "" if is_a_good_reason(found.reason) else f"a bad reason: {found.reason!r}"
    if found.kind != "row" or found.pixels is None:
        return f"{found.kind}: {found.reason}"
    if not case.row:
        return f"a row of {found.pixels.shape}"
    if case.pixels is None:
        return "" if 0 < found.pixels[:, :, 0].size <= MAX_PIXELS else f"pixels {found.pixels.shape}"
    if case.pixels.shape != found.pixels.shape:
        return f"{found.pixels.shape} instead of {case.pixels.shape}"
    off = int(np.abs(case.pixels.astype(int) - found.pixels).max())
    return "" if off <= case.tolerance else f"pixels are off by {off}"


def is_a_good_reason(reason: str) -> bool:
    """One short line for people: no address, no path, no stack."""
    shown = re.sub(r"b(['\"]).*\1$", "", reason)  # the first bytes of the file
    return (
        0 < len(reason) < 250
        and reason.isprintable()
        and not re.search(r"(?<!\d)0x[0-9a-f]{6}|/(usr|home|tmp|lib|work)|\.(py|cpp|so)\b|object at|None$", shown)
    )


@needs_linux
@pytest.mark.parametrize("family", [family.__name__ for family in FAMILIES])
def test_each_is_decoded_as_documented_or_rejected_with_a_reason(family: str, outcomes: dict[str, Outcome]) -> None:
    ours = {name: case for name, case in all_cases().items() if name.startswith(family + ":")}
    wrong = {name: complaint(case, outcomes[name]) for name, case in ours.items()}
    wrong = {name: what for name, what in wrong.items() if what}
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def test_a_wrong_outcome_is_noticed() -> None:
    case = Case("x", b"", np.zeros((2, 2, 3), np.uint8), reject=True, reason="because")
    assert complaint(case, Outcome("row", "", np.full((2, 2, 3), 9, np.uint8), 0)) == "pixels are off by 9"
    assert complaint(case, Outcome("MemoryError", "", None, 0)).startswith("MemoryError")
    assert complaint(case, Outcome("BadImage", "just so", None, 0)).startswith("rejected for another reason")
    assert complaint(case, Outcome("BadImage", "because <X object at 0x7fb1aa15dd3a>", None, 0)).startswith("a bad")
    assert complaint(case, Outcome("BadImage", "because", None, SECONDS + 1)).startswith("took")
    assert complaint(case, Outcome("BadImage", "because", None, 0)) == ""


def decode_with_pillow_alone(data: bytes, max_pixels: int) -> torch.Tensor:
    (found,) = PillowDecoder(max_pixels, plain=False)([data])
    if isinstance(found, BadImage):
        raise found
    return found.img_3HW


@pytest.mark.slow
def test_pillow_alone_makes_the_same_of_them() -> None:
    complaints = {name: complaint(case, outcome(case, decode_with_pillow_alone)) for name, case in all_cases().items()}
    assert {name: what for name, what in complaints.items() if what} == {}


def peak(data: bytes, size: int) -> int:
    """Bytes that decoding and resizing take at most."""
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    ImageTransform(ImageConfig(size=size))(data)
    return memory("VmHWM") - before


def colours(side: int) -> tuple[Image.Image, Image.Image]:
    """Gradients that are hard to compress: of grey, and of colours."""
    grey = Image.linear_gradient("L").resize((side, side))
    turned = grey.transpose(Image.Transpose.ROTATE_90)
    return grey, Image.merge("RGB", [grey, turned, grey])


LARGE_FILES: dict[str, Callable[[Image.Image, Image.Image], bytes]] = {
    "16-bit PNG": lambda grey, _: encoded(
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG", compress_level=1
    ),
    "progressive CMYK JPEG": lambda _, colour: encoded(colour.convert("CMYK"), "JPEG", progressive=True, subsampling=0),
    "lossless WebP": lambda _, colour: encoded(colour.convert("RGBA"), "WEBP", method=0, lossless=True, quality=0),
    "deflated TIFF": lambda _, colour: encoded(colour.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
    "PNG": lambda _, colour: encoded(colour.convert("RGBA"), "PNG", compress_level=1),
    "JPEG": lambda _, colour: encoded(colour, "JPEG"),
    "progressive JPEG": lambda _, colour: encoded(colour, "JPEG", progressive=True, subsampling=0),
    "WebP": lambda _, colour: encoded(colour, "WEBP", method=0),
    "GIF": lambda _, colour: encoded(colour.quantize(64), "GIF"),
    "animated WebP": lambda _, colour: encoded(
        colour,
        "WEBP",
        method=0,
        save_all=True,
        append_images=[colour.transpose(Image.Transpose.ROTATE_90)],
    ),
    "JPEG in TIFF": lambda _, colour: encoded(colour, "TIFF", compression="jpeg"),
    "TGA": lambda _, colour: encoded(colour.convert("RGBA"), "TGA", compression="tga_rle"),
    "JPEG 2000": lambda _, colour: encoded(colour.convert("RGBA"), "JPEG2000"),
    "AVIF": lambda _, colour: encoded(colour.convert("RGBA"), "AVIF", speed=10, subsampling="4:4:4"),
}
"""What takes most memory in each format, of gradients of grey and of colours."""

BOUNDED = [
    pytest.param(name, side, marks=pytest.mark.slow if place >= 4 or side > 1500 else ())
    for side in (1500, 10_000)
    for place, name in enumerate(LARGE_FILES)
]
"""Decoders of four libraries at a moderate size; the others, and the largest images, among the slow ones."""


@needs_linux
@pytest.mark.parametrize(("name", "side"), BOUNDED)
def test_memory_is_bounded_by_the_pixels_of_the_image(name: str, side: int) -> None:
    ImageTransform(ImageConfig(size=8))(LARGE_FILES[name](*colours(16)))  # what is set up once
    data = LARGE_FILES[name](*colours(side))
    taken = in_a_child(peak, data, 256)
    allowed = PEAK_BYTES_PER_PIXEL * side * side + 2 * len(data) + 2**24
    assert taken <= allowed, f"{taken:,} bytes for {side * side:,} pixels, {allowed:,} allowed"


# --- out of memory ----------------------------------------------------------------------------------------


def without_memory(data: bytes, left: int) -> str:
    transform = ImageTransform(ImageConfig(size=500, max_pixels=10**9))
    transform(encoded(Image.new("RGB", (8, 8)), "PNG"))  # what is set up once
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + left, resource.RLIM_INFINITY))
    try:
        return str(transform(data).shape)
    except Exception as error:
        return type(error).__name__


LIMITS_MB = (2, 30, 500) if QUICK in os.environ else (2, 15, 30, 60, 100, 500)


@needs_linux
@pytest.mark.parametrize(
    ("side", "format", "mode", "options"),
    sampled(
        (2500, "JPEG", "CMYK", {"progressive": True}),
        (2500, "WEBP", "RGB", {"method": 0}),
        (2500, "WEBP", "RGBA", {"method": 0, "lossless": True, "quality": 0}),
        (5000, "JPEG", "RGB", {"progressive": True}),
    ),
)
def test_running_out_of_memory_is_never_taken_for_damage(
    side: int, format: str, mode: str, options: dict[str, Any]
) -> None:
    if format == "WEBP" and tuple(map(int, PIL.__version__.split(".")[:2])) < (12, 3):
        pytest.skip("an older Pillow crashes there, which ends the process but makes no reject")
    data = encoded(Image.new("RGB", (side, side), "teal").convert(mode), format, **options)
    found = [in_a_child(without_memory, data, left * 2**20) for left in LIMITS_MB]
    # In a process that has freed much before, the smallest limits may not bite.
    assert set(found) <= {"MemoryError", "torch.Size([3, 500, 500])"}
    assert found[-1] == "torch.Size([3, 500, 500])"


def resize_with_little_memory(line: bytes) -> str:
    transform = ImageTransform(ImageConfig(size=(16_000, 16_000), resize="stretch", max_pixels=10**9))
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 2**27, resource.RLIM_INFINITY))
    try:
        return str(transform(line).shape)
    except Exception as error:
        return type(error).__name__


@needs_linux
def test_running_out_of_memory_while_resizing_is_the_machines_fault() -> None:
    line = encoded(Image.new("L", (1, 4000)), "PNG")
    assert in_a_child(resize_with_little_memory, line) == "MemoryError"


@needs_linux
def test_damage_is_not_taken_for_a_lack_of_memory() -> None:
    for format in ("WEBP", "JPEG"):
        data = encoded(Image.new("RGB", (300, 300)).convert("RGB" if format == "WEBP" else "CMYK"), format)
        assert in_a_child(without_memory, data[: len(data) // 2], 2**26) == "BadImage"


# --- the job ----------------------------------------------------------------------------------------------


def good(number: int) -> tuple[str, dict[str, bytes]]:
    return f"good-{number:04d}", {"jpg": jpeg(number, 30 + number % 9, 25 + number % 7), "cls": b"1"}


def tokens_by_key(job: Job) -> dict[str, list[int]]:
    store = TokenStore(job.store)
    return dict(zip(store.keys, torch.cat(store.read(slice(None)).idx_Bl, 1).tolist(), strict=True))


@pytest.mark.parametrize("third", sampled(0, 1, 2))
def test_a_tar_of_them_is_committed_and_none_is_lost(third: int, tmp_path: Path, tokenizer_folder: Path) -> None:
    """Of every family some, for they stand one after the other."""
    chosen = list(all_cases().values())[third::3]
    mixed, alone = [], []
    for number, case in enumerate(chosen):
        if number % 20 == 0:
            alone.append(good(number // 20))
            mixed.append(alone[-1])
        mixed.append((f"hostile-{number:04d}", {"jpg": case.data, "cls": b"1"}))
    limit = {"image.max_pixels": MAX_PIXELS, "tokenize.max_reject_rate": 1.0}
    jobs = []
    for name, samples in (("mixed", mixed), ("alone", alone)):
        write_shard(tmp_path / name / "train-0000.tar", samples)
        changes = {**limit, "source.shards": [f"{tmp_path / name}/train-*.tar"]}
        jobs.append(make_job(tmp_path / f"{name}-job", tmp_path / name, tokenizer_folder, changes))
        assert jobs[-1].run().complete
    record = jobs[0].commits["train-0000.tar"]
    ours, expected = tokens_by_key(jobs[0]), tokens_by_key(jobs[1])
    assert record["seen"] == len(mixed) == record["written"] + record["rejected"]
    assert {key: ours[key] for key, _ in mixed if key.startswith("good")} == {
        key: expected[key] for key, _ in mixed if key.startswith("good")
    }
    rejects = reject_lines(jobs[0])
    assert sorted([*ours, *rejects]) == sorted(key for key, _ in mixed)
    assert all(is_a_good_reason(reason) for reason in rejects.values())
    for number, case in enumerate(chosen):
        key = f"hostile-{number:04d}"
        assert case.row if key in ours else case.reject or too_long(rejects[key]), f"{case}: {rejects.get(key)}"


def too_long(reason: str) -> bool:
    return "after resizing" in reason


def reject_lines(job: Job) -> dict[str, str]:
    """Reasons by key."""
    found = {}
    for path in (job.store / "rejects").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            found[record["key"]] = record["reason"]
    return found


def test_too_many_hostile_images_fail_their_source_shard_when_told_so(tmp_path: Path, tokenizer_folder: Path) -> None:
    bad = [(f"bad-{number}", {"jpg": b"<svg/>", "cls": b"1"}) for number in range(4)]
    samples = [*map(good, range(8)), *bad]
    write_shard(tmp_path / "source" / "train-0000.tar", samples)
    changes = {"source.shards": [f"{tmp_path}/source/train-*.tar"]}
    job = make_job(tmp_path / "job", tmp_path / "source", tokenizer_folder, changes)
    result = job.run("tokenize.max_reject_rate=0.3")
    assert not result.complete
    assert "4 of 12 samples rejected" in result.failures["train-0000.tar"]
    assert job.run("tokenize.max_reject_rate=0.34").complete


# --- pickles ----------------------------------------------------------------------------------------------

PICKLES = ("pyd", "pickle", "pkl", "pth", "pt", "npy", "joblib")


@pytest.fixture
def trapped(tmp_path: Path) -> tuple[Path, Path]:
    """A source shard in which every pickle would leave a file when it is loaded, and that file."""
    trace = tmp_path / "unpickled"
    trap = pickled(str(trace))
    archive = io.BytesIO()
    np.save(archive, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    samples = [good(number) for number in range(9)]
    for key, members in samples:
        members.update(dict.fromkeys(PICKLES, trap))
        members["npy"] = archive.getvalue()[:128] + trap
        if key == "good-0008":
            members["jpg"] = trap
    write_shard(tmp_path / "source" / "train-0000.tar", samples)
    return tmp_path / "source", trace


def tarred(path: Path, extension: str) -> bytes:
    """Members with an extension, one behind the other, without those of the reject."""
    with tarfile.open(path) as tar:
        members = [tar.extractfile(name) for name in tar.getnames() if name.endswith("." + extension)]
        return b"".join(member.read() for member in members[:-1] if member)


@pytest.mark.parametrize("keep", [(), PICKLES], ids=["left out", "kept"])
def test_pickled_members_are_never_loaded(
    trapped: tuple[Path, Path], tokenizer_folder: Path, tmp_path: Path, keep: tuple[str, ...]
) -> None:
    source, trace = trapped
    changes = {"source.shards": [f"{source}/train-*.tar"], "source.keep": list(keep)}
    job = make_job(tmp_path / "job", source, tokenizer_folder, changes)
    assert job.run().complete
    store = TokenStore(job.store)
    assert (len(store), list(reject_lines(job))) == (8, ["good-0008"])
    for name in keep:  # carried as they are
        (packed,) = (job.store / "tokens.zarr" / "parts").glob(f"*/fields/{name}")
        data = zarr.open_array(packed / "data", mode="r")[...].tobytes()
        assert data == tarred(source / "train-0000.tar", name)
    assert not trace.exists()


def test_training_never_loads_pickled_members(
    trapped: tuple[Path, Path], tokenizer_folder: Path, tmp_path: Path
) -> None:
    source, trace = trapped
    changes = {"source.shards": [f"{source}/train-*.tar"], "source.keep": list(PICKLES)}
    config = make_job(tmp_path / "job", source, tokenizer_folder, changes).config(
        "train.batch_size=4", "train.shuffle_buffer=4"
    )
    collection = count_samples(config, training_shards(config), needed=24)
    batches = training_batches(config, collection, Place(0, 0, 1), torch.device("cpu"))
    for _, batch in zip(range(6), batches, strict=False):
        assert batch.img_B3HW.shape[0] + batch.skipped == 4
    batches.close()
    assert not trace.exists()


def test_the_trap_would_snap(tmp_path: Path) -> None:
    pickle.loads(pickled(str(tmp_path / "unpickled"))).close()
    assert (tmp_path / "unpickled").exists()


# --- fuzzing ----------------------------------------------------------------------------------------------

VALID = {name: valid.data for name, valid in valid_files().items()}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """`data` after some changes: bytes, lengths, parts cut out, doubled, moved, or taken from another file."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made))
        size = chance.choice([1, 2, 4, 8, 64])
        kind = chance.randrange(7)
        if kind == 0:
            made[at] = chance.randrange(256)
        elif kind == 1:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            made[at : at + size] = chance.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * size
        elif kind == 3 and len(made) > size:
            del made[at : at + size]
        elif kind == 4:
            made[at:at] = made[chance.randrange(len(made)) :][:size]
        elif kind == 5:
            other = VALID[chance.choice(sorted(VALID))]
            start = chance.randrange(len(other))
            made[at : at + size] = other[start : start + size]
        else:
            made[at : at + 4] = chance.choice([2, 255, 256, 65535, 2**31 - 1, 2**32 - 1]).to_bytes(
                4, chance.choice(["big", "little"])
            )
        made = made or bytearray(b"\0")
    return bytes(made)


def fuzz(name: str, chance: random.Random) -> None:
    """One mutation of a good file: pixels within the limit, or a reject with a good reason."""
    started = time.monotonic()
    try:
        pixels = decode_rgb(mutated(VALID[name], chance), MAX_PIXELS)
        assert pixels.shape[0] == 3
        assert 0 < pixels.shape[1] * pixels.shape[2] <= MAX_PIXELS
    except BadImage as error:
        assert is_a_good_reason(str(error)), str(error)
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("name", VALID)
@settings(max_examples=FUZZ_EXAMPLES, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_mutations_of_good_files_raise_nothing_else(name: str, chance: random.Random) -> None:
    fuzz(name, chance)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", VALID)
def test_many_mutations_of_good_files_raise_nothing_else(name: str) -> None:
    for number in range(20 * FUZZ_EXAMPLES):
        fuzz(name, random.Random(zlib.crc32(name.encode()) + number))
