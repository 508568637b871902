"""`vqtok verify`: every kind of damage is found, and the file is named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import CHUNK, PART, SHARD, commit_of, edit, flip, inside, manifest_parts, rewrite, verified
from fixtures_store import ROWS, Halt, Job, cold_python, good_samples, make_job, save_tiny_tokenizer, vqtok, write_shard
from support import sampled

from pipeline.errors import StoreError
from pipeline.jobs.verifying.commits import check_commits, percent
from pipeline.source.find import part_name
from pipeline.store.schema.seals import unsealed

pytest_plugins = ["fixtures_store"]


QUICK: dict[str, tuple[Callable[[Job], object], str]] = {
    "missing commit": (
        lambda job: commit_of(job).unlink(),
        rf"/commits: 1 of the records that manifest\.json speaks of are gone, such as {PART}\.json; restore them",
    ),
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
    "edited commit": (
        lambda job: edit(commit_of(job), '"written": 10', '"written": 11'),
        rf"commits/{PART}\.json: .*edited",
    ),
    "commit without its digest": (
        lambda job: commit_of(job).write_bytes(unsealed(commit_of(job).read_bytes())[0]),
        rf"commits/{PART}\.json: not a commit record \(it has lost its own sha256\)",
    ),
    "edited manifest": (
        lambda job: edit(job.store / "manifest.json", '"written": 10', '"written": 9'),
        "manifest.*edited",
    ),
    "manifest without its digest": (
        lambda job: (job.store / "manifest.json").write_bytes(unsealed((job.store / "manifest.json").read_bytes())[0]),
        r"manifest\.json: not a manifest \(it has lost its own sha256\)",
    ),
    "other digest in the manifest": (
        lambda job: rewrite(job.store / "manifest.json", content_digest="0" * 64),
        r"manifest\.json: not a manifest \(its content digest is not that of its parts\)",
    ),
    "other sums in the manifest": (
        lambda job: rewrite(job.store / "manifest.json", written=1, rejected=0),
        r"manifest\.json: not a manifest \(1 written and 0 rejected, \d+ and 7 in its parts\)",
    ),
    "a part twice in the manifest": (
        lambda job: rewrite(job.store / "manifest.json", parts=manifest_parts(job) + manifest_parts(job)[-1:]),
        r"manifest\.json: not a manifest \(its parts are not sorted, or one is there twice\)",
    ),
    "another commit than the manifest's": (
        lambda job: rewrite(commit_of(job), unlabelled=5),
        rf"manifest\.json: not as commits/{PART}\.json says",
    ),
    "missing codebook": (
        lambda job: shutil.rmtree(job.store / "tokens.zarr/codebook"),
        r"codebook: the codebook cannot",
    ),
    "missing root": (
        lambda job: (job.store / "tokens.zarr/zarr.json").unlink(),
        r"tokens\.zarr/zarr\.json: missing",
    ),
    "folder in the place of a commit": (
        lambda job: (commit_of(job).unlink(), commit_of(job).mkdir()),
        rf"commits/{PART}\.json: not a commit record \(Is a directory\)",
    ),
    "damaged codebook": (
        lambda job: flip(job.store / "tokens.zarr/codebook/c/0/0", 8),
        r"tokens\.zarr/codebook: the codebook",
    ),
    "other birth": (
        lambda job: rewrite(job.store / "store.json", identity={"layout": "raster"}),
        r'the configuration is not that of the store .*layout: "quadrants" here, "raster" there',
    ),
}
"""Damages that commits, sizes and names betray."""


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
    # The root of the hierarchy says of which birth it is.
    assert len(quick.problems) == (2 if damage == "other birth" else 1)
    full = verified(damageable)
    assert set(quick.problems) <= set(full.problems)
    assert len(full.problems) == len(set(full.problems))


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


@pytest.mark.parametrize(("share", "text"), [(1, "100%"), (1 - 1e-9, "99.9999%"), (0.5, "50%"), (0.958333, "95.8333%")])
def test_only_all_is_a_hundred_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_removed_source_shards_are_reported(damageable: Job) -> None:
    (damageable.source / "more/train-0004.tar").unlink()
    result = verified(damageable, quick=True)
    assert result.problems == ["manifest.json is not up to date; run vqtok tokenize again"]
    extra = f"{part_name('more/train-0004.tar')}: committed, but of no source shard of this configuration: "
    assert len(result.warnings) == 1 and result.warnings[0].startswith(extra)
    assert damageable.run().complete
    result = verified(damageable)
    assert (result.problems, len(result.warnings), result.samples) == ([], 1, ROWS)


@pytest.mark.parametrize(
    ("inflict", "message"),
    [
        (lambda job: inside(job, CHUNK).unlink(), r"/tokens/c/0/0: missing"),
        (lambda job: flip(inside(job, CHUNK), 5), r"/tokens/c/0/0: the checksum is not that of the commit"),
        (lambda job: edit(commit_of(job), '"written": 10', '"written": 11'), rf"commits/{PART}\.json: .*edited"),
        (lambda job: inside(job, "rejects/PART").unlink(), rf"rejects/{PART}\.\w+\.jsonl: missing"),
    ],
)
@pytest.mark.parametrize("where", ["other sources", "without source"])
def test_what_readers_read_is_checked_without_its_source(
    damageable: Job, inflict: Callable[[Job], object], message: str, where: str
) -> None:
    """An original may be deleted once it is tokenized, and a copy of a store may lie where no source is."""
    (damageable.source / SHARD).unlink()
    assert damageable.run().complete
    inflict(damageable)
    if where == "without source":
        shutil.rmtree(damageable.source)
    result = verified(damageable, with_source=where == "other sources")
    assert len(result.problems) == 1 and re.search(message, result.problems[0])


def test_a_copy_is_checked_without_source_and_tokenizer(damageable: Job, tmp_path: Path) -> None:
    nowhere = ["tokenizer.path=nowhere", "source.shards=nowhere/*.tar", "source.base=null"]
    command = ["verify", "--without-source", "--config", damageable.file]
    for options in ([], ["--quick"]):
        overrides = [option for override in nowhere for option in ("--set", override)]
        done = vqtok(*command, *options, *overrides, folder=tmp_path).wait()
        assert (done.status, done.err) == (0, "")
        assert f"6 parts, {ROWS} samples written, 7 rejected" in done.out
    (damageable.store / "manifest.json").unlink()
    problems = check_commits(damageable.config(*nowhere), with_source=False).problems
    assert problems == ["manifest.json is not up to date; run vqtok tokenize again"]
    done = vqtok(*command, "--rate", "1", folder=tmp_path).wait()
    assert done.status == 2 and "--without-source or --rate" in done.err


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


@pytest.mark.parametrize(
    ("options", "level"), [(["--quick"], "quick"), *sampled((["--rate", "0.5"], "full"), ([], "full"))]
)
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


@pytest.mark.parametrize("rate", ["nan", *sampled("0", "-0.1", "1.01", "inf", "some")])
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
