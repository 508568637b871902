"""`vqtok verify`: every kind of damage is found, and the file is named."""

import base64
import json
import re
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import (
    COLLECTION,
    ROWS,
    Halt,
    Job,
    cold_python,
    good_samples,
    make_job,
    save_tiny_tokenizer,
    vqtok,
    write_shard,
)

from pipeline.errors import SourceError, StoreError
from pipeline.files import LocalFiles
from pipeline.jobs.originals import batches_of_rows
from pipeline.jobs.verifying.commits import Verification, check_commits, percent
from pipeline.jobs.verifying.contents import check_contents
from pipeline.jobs.verifying.reencoding import choose_batches, encode_again
from pipeline.records import Reject
from pipeline.source.containers.tar.strict import StrictTar
from pipeline.source.find import find_source_shards, part_name
from pipeline.store.arrays.parts import Part
from pipeline.store.schema.birth import read_birth
from pipeline.store.schema.commits import CommitRecord, read_commit, read_commits
from pipeline.store.schema.snapshot import make_manifest
from pipeline.store.writing.writer import EncodedShard, commit_part

pytest_plugins = ["fixtures_store"]

SHARD = "train-0003.tar"
"""The one with rejects."""
PART = part_name(SHARD)


def verified(job: Job, *overrides: str, quick: bool = False, rate: float | None = None) -> Verification:
    config = job.config(*overrides)
    result = check_commits(config)
    if not quick:
        check_contents(config, result, show_progress=False)
    if rate is not None:
        encode_again(config, result, rate, show_progress=False)
    return result


def flip(path: Path, position: int = -1) -> None:
    """Damage one bit, leaving size and time as they are."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def inside(job: Job, pattern: str) -> Path:
    """A file of the part, or of its rejects."""
    (path,) = job.store.glob(pattern.replace("PART", f"{PART}.*"))
    return path


def commit_of(job: Job) -> Path:
    return job.store / f"commits/{PART}.json"


def replace_image(job: Job) -> None:
    """Another image of the same length: tars are not trusted for their size."""
    path = job.source / SHARD
    flip(path, 512 + 200)


def replace_key(job: Job) -> None:
    samples = COLLECTION[SHARD]
    write_shard(job.source / SHARD, [("grau", samples[0][1]), *samples[1:]])


CHUNK = "tokens.zarr/parts/PART/tokens/c/0/0"

QUICK: dict[str, tuple[Callable[[Job], object], str]] = {
    "missing commit": (lambda job: commit_of(job).unlink(), rf"{SHARD}: not committed; run vqtok tokenize again"),
    "damaged commit": (lambda job: commit_of(job).write_text("{"), rf"commits/{PART}\.json: not a commit record"),
    "commit of another part": (
        lambda job: shutil.copy(job.store / f"commits/{part_name('train-0000.tar')}.json", commit_of(job)),
        rf"commits/{PART}\.json: the commit record of {part_name('train-0000.tar')}",
    ),
    "commit of another attempt": (
        lambda job: rewrite(commit_of(job), attempt="00000000"),
        rf"parts/{PART}\.00000000/\S+: missing",
    ),
    "seen is no sum": (
        lambda job: rewrite(commit_of(job), seen=16),
        rf"commits/{PART}\.json: 16 seen, 10 written, 7 rejected",
    ),
    "missing chunk": (lambda job: inside(job, CHUNK).unlink(), r"/tokens/c/0/0: missing, \d+ bytes when"),
    "truncated chunk": (
        lambda job: inside(job, CHUNK).write_bytes(inside(job, CHUNK).read_bytes()[:-1]),
        r"/tokens/c/0/0: \d+ bytes, \d+ bytes when it was committed",
    ),
    "missing metadata": (
        lambda job: inside(job, "tokens.zarr/parts/PART/key/zarr.json").unlink(),
        r"/key/zarr\.json: missing",
    ),
    "missing part": (lambda job: shutil.rmtree(inside(job, "tokens.zarr/parts/PART")), rf"parts/{PART}\.\S+: missing"),
    "missing rejects": (lambda job: inside(job, "rejects/PART").unlink(), rf"rejects/{PART}\.\w+\.jsonl: missing"),
    "missing manifest": (
        lambda job: (job.store / "manifest.json").unlink(),
        r"manifest\.json is not up to date; run vqtok tokenize again",
    ),
    "damaged manifest": (
        lambda job: (job.store / "manifest.json").write_text("{}"),
        r"manifest\.json: not a manifest",
    ),
    "longer source": (
        lambda job: (job.source / SHARD).write_bytes((job.source / SHARD).read_bytes() + bytes(512)),
        rf"{SHARD}: [\d,]+ bytes, [\d,]+ when it was committed: it was replaced",
    ),
    "grown source": (
        lambda job: write_shard(job.source / "train-0009.tar", good_samples(900, 2)),
        r"train-0009\.tar: not committed",
    ),
    "other birth": (
        lambda job: rewrite(job.store / "store.json", identity={"layout": "raster"}),
        r'the configuration is not that of the store .*layout: "quadrants" here, "raster" there',
    ),
}
"""Damages that commits, sizes and names betray."""

FULL: dict[str, tuple[Callable[[Job], object], str]] = {
    "flipped token": (
        lambda job: flip(inside(job, CHUNK), 5),
        r"/tokens/c/0/0: the checksum is not that of the commit",
    ),
    "flipped metadata": (
        lambda job: flip(inside(job, "tokens.zarr/parts/PART/zarr.json"), 3),
        rf"parts/{PART}\.\w+/zarr\.json: the checksum",
    ),
    "flipped reject": (lambda job: flip(inside(job, "rejects/PART"), 10), rf"rejects/{PART}\.\w+\.jsonl: the checksum"),
    "one more written": (
        lambda job: rewrite(commit_of(job), seen=18, written=11),
        rf"commits/{PART}\.json: 11 written, but there are 10",
    ),
    "one less written": (
        lambda job: rewrite(commit_of(job), seen=16, written=9),
        rf"commits/{PART}\.json: 9 written, but there are 10",
    ),
    "one more rejected": (
        lambda job: rewrite(commit_of(job), seen=18, rejected=8),
        rf"commits/{PART}\.json: 8 rejected, but there are 7",
    ),
    "other labels": (
        lambda job: rewrite(commit_of(job), unlabelled=0),
        rf"commits/{PART}\.json: 0 unlabelled, but there are 1",
    ),
    "other code counts": (
        lambda job: rewrite(commit_of(job), code_counts=packed([240] + [0] * 15)),
        rf"commits/{PART}\.json: the tokens are not as often",
    ),
    "code counts of fewer codes": (
        lambda job: rewrite(commit_of(job), code_counts=packed([240])),
        rf"commits/{PART}\.json: 1 code counts for 16 codes",
    ),
    "code counts that are none": (
        lambda job: rewrite(commit_of(job), code_counts="many"),
        rf"commits/{PART}\.json: the code counts cannot be read",
    ),
    "other content digest": (
        lambda job: rewrite(commit_of(job), content_digest="0" * 64),
        rf"commits/{PART}\.json: the arrays are not those of the commit \(content digest\)",
    ),
    "other digest in the manifest": (
        lambda job: rewrite(job.store / "manifest.json", content_digest="0" * 64),
        r"manifest\.json: content_digest not as the commit records say; delete it",
    ),
    "other sums in the manifest": (
        lambda job: rewrite(job.store / "manifest.json", written=1, rejected=0),
        r"manifest\.json: written, rejected not as the commit records say; delete it",
    ),
    "damaged codebook": (
        lambda job: flip(job.store / "tokens.zarr/codebook/c/0/0", 8),
        r"tokens\.zarr/codebook: the codebook",
    ),
    "missing root": (lambda job: (job.store / "tokens.zarr/zarr.json").unlink(), r"tokens\.zarr/zarr\.json: "),
    "other image in the source": (replace_image, rf"{SHARD}: not the source shard that was tokenized \(sha256\)"),
    "other key in the source": (replace_key, rf"{SHARD}: not the source shard that was tokenized \(sha256\)"),
}
"""Damages that only reading everything betrays."""


def packed(counts: list[int]) -> str:
    return base64.b64encode(zlib.compress(np.array(counts, "<i8").tobytes())).decode()


def test_a_sound_store_passes(finished: Job) -> None:
    for quick, rate in ((True, None), (False, None), (False, 1.0)):
        result = verified(finished, quick=quick, rate=rate)
        assert (result.problems, result.warnings) == ([], [])
        assert (result.samples, result.rejected, len(result.commits)) == (ROWS, 7, 6)
        assert result.content_digest == finished.digest
        assert result.rows_encoded_again == (ROWS if rate else 0)
        assert result.rows_that_differ == 0
        assert result.token_agreement == rate


@pytest.mark.parametrize("damage", QUICK)
def test_a_quick_check_finds(damageable: Job, damage: str) -> None:
    inflict, message = QUICK[damage]
    inflict(damageable)
    quick = verified(damageable, quick=True)
    assert [problem for problem in quick.problems if re.search(message, problem)], quick.problems
    assert len(quick.problems) == 1
    full = verified(damageable)
    assert set(quick.problems) <= set(full.problems)
    assert len(full.problems) == len(set(full.problems))


@pytest.mark.parametrize("damage", FULL)
def test_a_full_check_finds(damageable: Job, damage: str) -> None:
    inflict, message = FULL[damage]
    inflict(damageable)
    assert verified(damageable, quick=True).problems == []
    full = verified(damageable)
    assert [problem for problem in full.problems if re.search(message, problem)], full.problems
    assert len(full.problems) == 1


def test_several_damages_are_all_reported(damageable: Job) -> None:
    flip(inside(damageable, CHUNK))
    (damageable.source / "train-0001.tar").write_bytes(b"cut")
    (damageable.store / "manifest.json").unlink()
    problems = "\n".join(verified(damageable).problems)
    for message in (
        r"/tokens/c/0/0: the checksum",
        r"train-0001\.tar: 3 bytes",
        r"train-0001\.tar: at byte 0",
        "manifest",
    ):
        assert re.search(message, problems), message


def commit_in_its_place(job: Job, path: str, change: Callable[[EncodedShard], EncodedShard]) -> None:
    """A sound part of other contents: what a writer with a defect would leave."""
    files = LocalFiles(job.store)
    birth, old = read_birth(files), read_commit(files, part_name(path))
    part = Part(files, birth, old.part, old.attempt, old.written)
    lines = (job.store / "rejects" / old.rejects.path).read_text().splitlines()
    shard = EncodedShard(
        part=old.part,
        sources=old.sources,
        tokens=part.tokens(),
        keys=part.keys,
        labels=part.labels.tolist(),
        fields={"txt": part.field("txt")},
        rejects=[Reject.model_validate_json(line) for line in lines],
        ignored=[],
        execution=old.execution,
        seconds={},
    )
    (job.store / f"commits/{old.part}.json").unlink()
    commit_part(files, birth, change(shard))
    parts = sorted(name.removesuffix(".json") for name in files.list("commits"))
    files.put("manifest.json", make_manifest(read_commits(files, parts), parts, 16, 2).to_json())


def with_other_tokens(shard: EncodedShard) -> EncodedShard:
    tokens = shard.tokens.copy()
    tokens[:, 0] = (tokens[:, 0] + 1) % 16
    return replace(shard, tokens=tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shard: replace(shard, keys=shard.keys[::-1]), rf"{SHARD}: keys differ from sample 0 on"),
        (
            lambda shard: replace(shard, rejects=shard.rejects[:-1]),  # a sample that nobody accounts for
            rf"{SHARD}: keys differ from sample 15 on: source \['bad-label'\]",
        ),
        (
            lambda shard: replace(shard, rejects=[*shard.rejects, shard.rejects[0].model_copy(update={"index": 0})]),
            rf"{SHARD}: keys differ from sample 0 on",
        ),
        (
            lambda shard: replace(shard, keys=[*shard.keys[:-1], "invented"]),
            rf"{SHARD}: keys differ from sample 16 on: source \['last'\]",
        ),
        (with_other_tokens, rf"{SHARD}: 10 of 10 rows differ when encoded again, though in the way"),
    ],
    ids=["order", "lost reject", "doubled sample", "other key", "other tokens"],
)
def test_a_sound_part_of_the_wrong_contents_is_found(
    damageable: Job, change: Callable[[EncodedShard], EncodedShard], message: str
) -> None:
    commit_in_its_place(damageable, SHARD, change)
    assert verified(damageable, quick=True).problems == []
    problems = verified(damageable, rate=1).problems
    assert [problem for problem in problems if re.search(message, problem)], problems


def test_tokens_of_another_machine_may_differ_a_little(damageable: Job) -> None:
    other = {"precision": "fp32", "device": "another", "batch_size": 3}
    commit_in_its_place(damageable, SHARD, lambda shard: replace(with_other_tokens(shard), execution=other))
    result = verified(damageable, rate=1)
    assert result.problems == []
    assert result.rows_that_differ == 10
    assert result.token_agreement == pytest.approx(1 - 10 / (24 * ROWS))
    (warning,) = result.warnings
    # One token of 24 in each row.
    assert warning.startswith("10 of 10 rows differ when encoded again, 95.8333% of their tokens agree; ")
    assert re.search(
        r'made in another way: device: "\w.*" here, "another" there; images_at_once: \d+ here, null there; versions',
        warning,
    )
    assert "batch_size" not in warning
    assert f"{ROWS} rows encoded again, 10 differ; {percent(1 - 10 / (24 * ROWS))} of their tokens agree" in str(result)


def test_tokens_of_another_machine_may_be_the_same(damageable: Job) -> None:
    other = {"precision": "fp32", "device": "another"}
    commit_in_its_place(damageable, SHARD, lambda shard: replace(shard, execution=other))
    result = verified(damageable, rate=1)
    assert (result.problems, result.warnings, result.token_agreement) == ([], [], 1)


def test_a_part_is_encoded_again_in_batches_of_its_own_size(damageable: Job) -> None:
    """The configuration may have changed since; what counts is what the record says."""
    result = verified(damageable, "tokenize.batch_size=3", rate=1)
    assert (result.problems, result.warnings) == ([], [])
    assert (result.rows_encoded_again, result.rows_that_differ) == (ROWS, 0)
    commit_in_its_place(damageable, SHARD, with_other_tokens)
    (problem,) = verified(damageable, "tokenize.batch_size=3", rate=1).problems
    assert "10 of 10 rows differ when encoded again, though in the way in which they were made" in problem


def test_nothing_is_encoded_again_where_there_are_problems(damageable: Job) -> None:
    inside(damageable, CHUNK).unlink()
    result = verified(damageable, rate=1)
    assert (len(result.problems), result.rows_encoded_again, result.token_agreement) == (1, 0, None)
    assert result.warnings == ["nothing was encoded again: see to the problems first"]


def commit_of_rows(part: str, rows: int, **execution: object) -> CommitRecord:
    return CommitRecord.model_construct(part=part, written=rows, execution=execution)


def test_batches_are_drawn_from_the_whole_store() -> None:
    commits = [commit_of_rows(f"part{number:03d}", number % 7 * 10, batch_size=8) for number in range(100)]
    rows = sum(commit.written for commit in commits)
    everything = choose_batches(commits, 1, 99, "seed")
    assert sum(len(batch) for batches in everything.values() for batch in batches) == rows
    assert max(len(batch) for batches in everything.values() for batch in batches) == 8
    for commit in commits:
        assert [row for batch in everything.get(commit.part, []) for row in batch] == [*range(commit.written)]
    for rate in (1e-9, 0.01, 0.1, 0.5):
        chosen = choose_batches(commits, rate, 99, "seed")
        assert chosen == choose_batches(commits, rate, 99, "seed")
        count = sum(len(batches) for batches in chosen.values())
        assert count == max(1, -(-rate * sum(map(len, everything.values())) // 1))
        for part, batches in chosen.items():
            assert all(batch in everything[part] for batch in batches)
            assert [batch.start for batch in batches] == sorted({batch.start for batch in batches})
    assert choose_batches(commits, 0.1, 99, "seed") != choose_batches(commits, 0.1, 99, "another")
    spread = [int(part.removeprefix("part")) for part in choose_batches(commits, 0.1, 99, "seed")]
    assert max(after - before for before, after in pairwise(spread)) <= 25


def test_records_without_a_batch_size_have_that_of_the_configuration() -> None:
    for execution in ({}, {"batch_size": 0}, {"batch_size": "many"}):
        assert choose_batches([commit_of_rows("p", 10, **execution)], 1, 4, "") == {
            "p": [range(4), range(4, 8), range(8, 10)]
        }


def test_a_store_without_rows_has_no_batches() -> None:
    assert choose_batches([], 1, 4, "") == {}
    assert choose_batches([commit_of_rows("p", 0)], 1, 4, "") == {}


def test_a_source_shard_is_read_once_for_all_its_batches(finished: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    begin = StrictTar.__init__

    def counted(tar: StrictTar, stream: object, location: str, *options: object) -> None:
        opened.append(location)
        begin(tar, stream, location, *options)  # type: ignore[arg-type]

    config = finished.config()
    result = verified(finished)
    monkeypatch.setattr(StrictTar, "__init__", counted)
    encode_again(config, result, 1, show_progress=False)
    # All but the empty one.
    assert sorted(opened) == sorted(f"{finished.source}/{path}" for path, samples in COLLECTION.items() if samples)


def test_an_image_that_became_bad_fails_its_batch(damageable: Job) -> None:
    """As after a source shard was replaced while it was verified: the rows behind it must not move up."""
    config = damageable.config()
    result = verified(damageable)
    samples = COLLECTION["train-0000.tar"]
    bad = [(key, {**members, "jpg": b"no image"} if key == "000009" else members) for key, members in samples]
    write_shard(damageable.source / "train-0000.tar", bad)
    encode_again(config, result, 1, show_progress=False)
    (problem,) = result.problems
    assert "train-0000.tar: not the images that were tokenized" in problem
    assert result.rows_encoded_again == ROWS - 12
    assert result.rows_that_differ == 0


def test_chosen_batches_are_those_that_were_encoded(finished: Job) -> None:
    config = finished.config()
    (shard,) = [shard for shard in find_source_shards(config.source) if shard.path == "train-0000.tar"]
    attempt = finished.commits[shard.path]["attempt"]
    store = LocalFiles(finished.store)
    with ThreadPoolExecutor(2) as decoders:

        def keys(chosen: list[range], size: int = 8) -> list[list[str]]:
            batches = batches_of_rows(config, store, shard, attempt, chosen, size, decoders)
            return [[row.key for row in batch.rows] for batch in batches]

        assert keys([range(8, 16)]) == [[f"{row:06d}" for row in range(8, 16)]]
        assert keys([range(8), range(16, 20)]) == [[f"{row:06d}" for row in rows] for rows in (range(8), range(16, 20))]
        with pytest.raises(SourceError, match="not the images that were tokenized"):
            keys([range(16, 24)])


@pytest.mark.parametrize(("share", "text"), [(1, "100%"), (1 - 1e-9, "99.9999%"), (0.5, "50%"), (0.958333, "95.8333%")])
def test_only_all_is_a_hundred_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_tokens_outside_the_codebook_are_found(damageable: Job) -> None:
    birth = damageable.store / "store.json"
    rewrite(birth, codebook=json.loads(birth.read_text())["codebook"] | {"vocab_size": 3})
    problems = verified(damageable).problems
    assert [problem for problem in problems if re.search(r"token 1\d is outside the codebook", problem)], problems


def test_removed_source_shards_are_reported(damageable: Job) -> None:
    (damageable.source / "more/train-0004.tar").unlink()
    result = verified(damageable, quick=True)
    assert result.problems == ["manifest.json is not up to date; run vqtok tokenize again"]
    extra = f"{part_name('more/train-0004.tar')}: committed, but of no source shard of this configuration"
    assert result.warnings == [extra]
    assert damageable.run().complete
    result = verified(damageable)
    assert (result.problems, result.warnings) == ([], [extra])


def test_an_unfinished_store_does_not_pass(job: Job) -> None:
    job.start(halt=Halt("os.link", "/commits/", 3)).wait()
    result = verified(job)
    assert len(result.problems) == 4
    assert all("not committed; run vqtok tokenize again" in problem for problem in result.problems)
    assert len(result.commits) == 2


def test_another_configuration_does_not_pass(finished: Job, tmp_path: Path) -> None:
    other = save_tiny_tokenizer(tmp_path / "other", seed=1)
    for override, field in {
        f"tokenizer.path={other}": "tokenizer.weights",
        "tokenize.layout=raster": 'the store (there): layout: "raster" here, "quadrants" there',
        "tokenizer.path=nowhere": "nowhere: no such tokenizer folder",
    }.items():
        (problem,) = verified(finished, override).problems
        assert field in problem


def test_no_store_is_an_error(job: Job) -> None:
    with pytest.raises(StoreError, match=r"not a token store \(no store\.json\)"):
        check_commits(job.config())


def test_a_store_of_nothing_but_rejects_passes(tokenizer_folder: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "source/train-0.tar", [("a", {"jpg": b"no image"}), ("b", {"cls": b"1"})])
    job = make_job(tmp_path / "job", tmp_path / "source", tokenizer_folder, {"source.shards": f"{tmp_path}/source/*"})
    assert job.run().complete
    result = verified(job)
    assert (result.problems, result.samples, result.rejected) == ([], 0, 2)


FIELDS = {
    "level": str,
    "samples": int,
    "rejected": int,
    "rows_encoded_again": int,
    "rows_that_differ": int,
    "token_agreement": float | None,
    "content_digest": str | None,
    "problems": list,
    "warnings": list,
    "commits": int,
}


@pytest.mark.parametrize(("options", "level"), [(["--quick"], "quick"), ([], "full"), (["--rate", "0.5"], "full")])
def test_the_command_prints_json_and_its_status_tells_loss(damageable: Job, options: list[str], level: str) -> None:
    command = ["verify", *options, "--config", damageable.file]
    sound = vqtok(*command, "--json", folder=damageable.output).wait()
    assert (sound.status, sound.err) == (0, "")
    answer = json.loads(sound.out)
    assert list(answer) == list(FIELDS)
    for name, kind in FIELDS.items():
        assert isinstance(answer[name], kind), name
    assert (answer["level"], answer["commits"], answer["content_digest"]) == (level, 6, damageable.digest)
    text = vqtok(*command, folder=damageable.output).wait().out
    assert f"ok ({level} check)" in text
    again = re.search(r"^(\d+) rows encoded again, 0 differ; 100% of their tokens agree$", text, re.MULTILINE)
    assert answer["rows_encoded_again"] == (int(again[1]) if again else 0)
    assert bool(again) == ("--rate" in options)

    inside(damageable, CHUNK).unlink()
    lost = vqtok(*command, "--json", folder=damageable.output).wait()
    assert (lost.status, lost.err, len(json.loads(lost.out)["problems"])) == (1, "", 1)
    text = vqtok(*command, folder=damageable.output).wait()
    assert re.search(r"^problem: .*tokens/c/0/0: missing", text.out, re.MULTILINE)
    assert (text.status, text.out.splitlines()[-1]) == (1, "1 problems")


@pytest.mark.parametrize("rate", ["0", "-0.1", "1.01", "nan", "inf", "some"])
def test_a_rate_that_is_no_share_is_status_2(finished: Job, rate: str) -> None:
    done = vqtok("verify", "--rate", rate, "--config", finished.file, folder=finished.output).wait()
    assert (done.status, done.out) == (2, "")
    assert "--rate" in done.err
    assert rate in done.err


def test_quick_and_rate_exclude_each_other(finished: Job) -> None:
    done = vqtok("verify", "--rate", "0.1", "--quick", "--config", finished.file, folder=finished.output).wait()
    assert (done.status, done.out) == (2, "")
    assert "leave out --quick or --rate" in done.err


def test_without_a_rate_it_needs_no_torch(finished: Job) -> None:
    code = "import sys; from pipeline.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = cold_python(code, "verify", "--config", finished.file)
    assert (done.status, done.out.splitlines()[-2:]) == (0, ["ok (full check)", "False"]), done.err
