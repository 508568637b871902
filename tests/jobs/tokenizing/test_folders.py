"""Folders of images: the rows of tars, and what is promised of tars when files come, go or change."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_store import MIXED, Done, Halt, Job, all_files, good_samples, jpeg, make_job, vqtok, write_shard

from pipeline.errors import ConfigError, SourceError
from pipeline.source.shards.naming import part_name
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store"]

SAMPLES = {
    "a": good_samples(0, 19),
    "b": [(key, members) for key, (members, _) in MIXED.items() if key not in ("with", "no-image")],
    # one has a dot in its key, and the other is no sample here
}


def unpack(folder: Path, name: str) -> None:
    for key, members in SAMPLES[name]:
        for extension, data in members.items():
            path = folder / name / f"{key}.{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Job:
    """A finished job over two folders. Read only: use `folders` to change it."""
    folder = tmp_path_factory.mktemp("unpacked")
    for name in SAMPLES:
        unpack(folder / "source", name)
    job = make_job(folder / "job", folder / "source", tokenizer_folder, patterns(folder))
    assert job.run().complete
    return job


def patterns(folder: Path) -> dict[str, Any]:
    return {"source.shards": [f"{folder}/source/a", f"{folder}/source/b/"], "source.base": f"{folder}/source"}


@pytest.fixture
def folders(unpacked: Job, tmp_path: Path) -> Job:
    """The same with a source and a store that a test may change."""
    shutil.copytree(unpacked.source, tmp_path / "source")
    job = make_job(tmp_path / "job", tmp_path / "source", unpacked.tokenizer, patterns(tmp_path))
    shutil.copytree(unpacked.store, job.store)
    return job


def contents(job: Job) -> dict[str, tuple[Any, ...]]:
    """Label, caption and tokens of each row by key."""
    store = TokenStore(job.store)
    rows = store.read(np.arange(len(store)))
    tokens = np.concatenate([block.numpy() for block in rows.idx_Bl], axis=1)
    fields = store.field_of("txt", np.arange(len(store)))
    return {
        key: (int(label), field, row.tolist())
        for key, label, field, row in zip(store.keys, rows.label, fields, tokens, strict=True)
    }


def verified(job: Job, *options: str) -> Done:
    return vqtok("verify", "--config", job.file, *options, folder=job.output).wait()


def test_the_rows_and_rejects_are_those_of_tars(unpacked: Job, tmp_path: Path) -> None:
    for name, samples in SAMPLES.items():
        write_shard(tmp_path / f"source/{name}.tar", sorted(samples))
    changes = {"source.shards": f"{tmp_path}/source/*.tar", "source.base": f"{tmp_path}/source"}
    tars = make_job(tmp_path / "job", tmp_path / "source", unpacked.tokenizer, changes)
    assert tars.run().complete
    assert contents(tars) == contents(unpacked)
    assert unpacked.commits.keys() == {"a/#000000", "b/#alpha"}
    for part, commit in unpacked.commits.items():
        other = tars.commits[f"{part[0]}.tar"]
        assert [commit[name] for name in ("seen", "written", "rejected", "unlabelled")] == [
            other[name] for name in ("seen", "written", "rejected", "unlabelled")
        ]
    rejects = [
        [json.loads(line) for path in sorted((job.store / "rejects").iterdir()) for line in path.open()]
        for job in (unpacked, tars)
    ]
    assert sorted(rejects[0], key=str) == sorted(rejects[1], key=str)


def test_a_second_run_has_nothing_to_do_and_it_verifies(unpacked: Job) -> None:
    before = all_files(unpacked.store)
    assert unpacked.run().complete
    assert unpacked.start("--check-files").wait().status == 0
    assert all_files(unpacked.store) == before
    assert verified(unpacked, "--rate", "1").out.endswith("ok (full check)\n")


def test_any_number_of_processes_makes_the_same_store(unpacked: Job, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", unpacked.source, unpacked.tokenizer, patterns(unpacked.source.parent))
    children = [job.start() for _ in range(2)]
    assert [child.wait().status for child in children] == [0, 0]
    assert job.digest == unpacked.digest
    assert listings(job) == listings(unpacked)


LOGS = [f"{part_name(folder)}.00000.json" for folder in ("a", "b")]
OF_PARTS = [f"{part_name(path)}.json" for path in ("a/#000000", "b/#alpha")]


def listings(job: Job) -> dict[str, bytes]:
    return all_files(job.store / "listings")


def test_other_programs_find_the_files_of_a_part_by_its_name(unpacked: Job) -> None:
    assert listings(unpacked).keys() == {*LOGS, *OF_PARTS}
    for path, commit in unpacked.commits.items():
        listing = json.loads((unpacked.store / f"listings/{commit['part']}.json").read_text())["listing"]
        assert (listing["part"], listing["path"], listing["bytes"]) == (
            commit["part"],
            path,
            commit["sources"][0]["bytes"],
        )
        files = [
            unpacked.source / listing["folder"] / inside / name
            for inside in listing["files"]
            for name in listing["files"][inside]
        ]
        assert sum(file.stat().st_size for file in files) == listing["bytes"]


@pytest.mark.parametrize("links", [1, 2, 3, 4])
def test_what_a_killed_process_has_not_written_the_next_one_does(unpacked: Job, tmp_path: Path, links: int) -> None:
    """It is killed before each of the files, two of the log and two of parts."""
    job = make_job(tmp_path / "job", unpacked.source, unpacked.tokenizer, patterns(unpacked.source.parent))
    assert job.start(halt=Halt("os.link", "/listings/", links)).wait().status == -signal.SIGKILL
    there = {name for name in job.listing("listings") if not name.startswith(".tmp-")}
    assert len(there) in ((links - 1,) if links < 3 else (2, 3))  # those of parts are written at one time
    assert there <= {*LOGS, *OF_PARTS} and len(there - {*LOGS}) == max(0, len(there) - 2)
    assert not job.commits
    children = [job.start() for _ in range(2)]
    assert [child.wait().status for child in children] == [0, 0]
    assert job.digest == unpacked.digest
    assert {name: data for name, data in listings(job).items() if not name.startswith(".tmp-")} == listings(unpacked)


def test_a_store_of_before_gets_files_of_parts_when_a_job_runs_next(folders: Job, unpacked: Job) -> None:
    for name in OF_PARTS:
        (folders.store / "listings" / name).unlink()
    for option in ("--quick", "--rate=1"):
        assert verified(folders, option).status == 0
    assert listings(folders).keys() == {*LOGS}
    assert folders.start().wait().status == 0  # it is finished
    assert all_files(folders.store) == all_files(unpacked.store)
    (folders.store / "listings" / OF_PARTS[1]).unlink()
    (folders.source / "a/000000-new.jpg").write_bytes(jpeg(77))
    assert folders.start().wait().status == 0  # it is not
    assert listings(folders).items() >= listings(unpacked).items()
    assert len(listings(folders)) == 6


def test_damage_to_the_files_of_a_part_is_named_and_mended(folders: Job, unpacked: Job) -> None:
    paths = [folders.store / "listings" / name for name in OF_PARTS]
    text = paths[0].read_text()
    paths[0].write_text(text.replace("000003.jpg", "000004.jpg"))
    for option in ("--quick", "--rate=1"):
        done = verified(folders, option)
        assert done.status == 1
        assert f"{paths[0]}: not as {LOGS[0]} beside it says; delete it and run vqtok tokenize again" in done.out
        assert "\n1 problems" in done.out
    assert folders.start().wait().status == 0
    (folders.source / "b/new.jpg").write_bytes(jpeg(78))
    assert folders.start().wait().status == 0
    assert len(folders.commits) == 3
    paths[0].unlink()
    done = verified(folders, "--quick")
    assert f"{paths[0]}: missing; run vqtok tokenize again" in done.out
    assert folders.start().wait().status == 0
    assert paths[0].read_text() == text
    assert verified(folders).status == 0


def test_they_are_not_written_through_a_link_and_a_finished_job_does_without(folders: Job, tmp_path: Path) -> None:
    elsewhere = (folders.store / "listings").rename(tmp_path / "elsewhere")
    (elsewhere / OF_PARTS[0]).unlink()
    (folders.store / "listings").symlink_to(elsewhere)
    done = folders.start().wait()
    assert (done.status, done.err) == (0, "")
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted([*LOGS, OF_PARTS[1]])


def test_new_files_are_new_source_shards(folders: Job, unpacked: Job) -> None:
    before = folders.commits
    (folders.source / "a/000000-new.jpg").write_bytes(jpeg(77))
    (folders.source / "a/000001.json").write_bytes(b"{}")  # too late
    done = folders.start().wait()
    assert done.status == 0
    assert "1 files came after their samples were listed, and are left out, such as '000001.json'" in done.err
    assert folders.commits.keys() - before.keys() == {"a/#000000-new"}
    assert {path: folders.commits[path] for path in before} == before
    assert contents(folders).items() >= contents(unpacked).items()
    assert TokenStore(folders.store, content_digest=unpacked.digest).keys[0] == TokenStore(unpacked.store).keys[0]
    assert verified(folders).status == 0


def test_a_file_that_is_gone_is_a_replaced_source_shard(folders: Job) -> None:
    (folders.source / "a/000003.jpg").unlink()
    done = folders.start().wait()
    assert done.status == 1
    assert "1 source shards were replaced after they were committed" in done.err
    assert "a/#000000: 1 files are gone, such as '000003.jpg'. Restore them" in done.err
    assert "1 files are gone, such as '000003.jpg'" in verified(folders, "--quick").out


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_store_that_has_lost_its_listings_is_not_filled_anew(folders: Job, with_manifest: bool) -> None:
    (folders.source / ("a/0.jpg" if with_manifest else "a/000001-new.jpg")).write_bytes(jpeg(77))  # another first key
    shutil.rmtree(folders.store / "listings")
    if not with_manifest:
        (folders.store / "manifest.json").unlink()
    for arguments in (["tokenize"], ["verify", "--quick"], ["status"]):
        done = vqtok(*arguments, "--config", folders.file, folder=folders.output).wait()
        assert done.status == 1
        assert "listings: the listing of a/#000000 is gone, and it is committed" in done.err
    assert folders.listing("listings") == []


@pytest.mark.parametrize("inside", ["", "deep", "deep/er"])
def test_a_store_among_the_images_is_refused_before_it_hides_them(inside: str, tmp_path: Path, unpacked: Job) -> None:
    images = tmp_path / "images"
    for name in ("a.jpg", "deep/er/b.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(jpeg(1))
    job = make_job(tmp_path / "job", images, unpacked.tokenizer, {"source.shards": str(images), "source.label": None})
    with pytest.raises(ConfigError, match=r"tokenize\.store: .* holds images of the collection, such as those in"):
        job.run(f"tokenize.store={images / inside}")
    assert not list(images.rglob("*.json"))
    assert job.run(f"tokenize.store={images}/runs/store").complete  # beside them is passed over
    assert job.run(f"tokenize.store={images}/runs/store").complete


def test_originals_may_all_be_deleted(folders: Job) -> None:
    shutil.rmtree(folders.source / "a")
    (folders.source / "a").mkdir()
    done = folders.start().wait()
    assert (done.status, "1 committed part is of a source shard that" in done.err) == (0, True), done.err


@pytest.mark.parametrize("unwanted", [False, True])
def test_a_file_that_has_changed_is_noticed_by_those_who_look_at_files(folders: Job, unwanted: bool) -> None:
    path = folders.source / ("a/000002.cls" if unwanted else "a/000002.jpg")
    path.write_bytes(b"1" if unwanted else jpeg(4711))
    os.utime(path, (1, 1))
    assert folders.start().wait().status == 0  # names are compared
    done = folders.start("--check-files").wait()
    assert done.status == 1
    count = len([path for path in (folders.source / "a").iterdir() if path.is_file()])
    assert re.search(rf"a/#000000: 1 of {count} files changed, such as '000002\.(jpg|cls)'", done.err)
    for option in ("--quick", "--rate=1"):
        assert "files changed, such as '000002" in verified(folders, option).out


def test_a_copied_collection_of_other_times_passes(folders: Job, unpacked: Job) -> None:
    for number, path in enumerate(folders.source.rglob("*.*")):
        os.utime(path, (number, number))
    assert folders.start("--check-files").wait().status == 0
    assert verified(folders).status == 0
    assert folders.digest == unpacked.digest


def fresh(folders: Job) -> Job:
    """A job over the same folders whose files are listed and nothing is committed."""
    for path in folders.store.iterdir():
        if path.is_file():
            path.unlink()
        elif path.name != "listings":
            shutil.rmtree(path)
    return folders


def test_a_listed_file_that_cannot_be_read_fails_its_source_shard_unless_it_is_excluded(folders: Job) -> None:
    job = fresh(folders)
    (job.source / "a/000003.jpg").unlink()
    (job.source / "a/000003.jpg").symlink_to("nowhere")
    (job.source / "a/000005.txt").unlink()
    done = job.start().wait()
    assert done.status == 1
    assert re.search(
        r"a/#000000 stays pending: '.*a/00000[35].(jpg|txt)': No such file or directory; restore the file", done.err
    )
    assert job.commits.keys() == {"b/#alpha"}
    done = job.start("--set", "source.exclude=a/00000[35].*").wait()
    assert done.status == 0, done.err
    assert job.commits["a/#000000"]["rejected"] == 2
    commit = job.commits["a/#000000"]
    lines = (job.store / f"rejects/{commit['part']}.{commit['attempt']}.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["reason"] == ".jpg cannot be read (No such file or directory)"
    again = ("--set", "source.exclude=a/00000[35].*")
    assert verified(job, *again).status == 0
    assert job.start(*again, "--check-files").wait().status == 0


def test_a_file_that_is_written_while_it_is_read_fails_its_source_shard(
    folders: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.source.containers.folder import reader

    job, original = fresh(folders), reader.FolderReader._expect_unchanged

    def write_first(self: Any) -> None:
        (job.source / "a/000001.jpg").write_bytes(jpeg(1))
        original(self)

    monkeypatch.setattr(reader.FolderReader, "_expect_unchanged", write_first)
    result = job.run()
    assert "written while its source shard was read" in result.failures["a/#000000"]
    monkeypatch.undo()
    assert job.run().complete


def test_a_file_that_is_gone_and_excluded_is_no_damage_of_the_store(folders: Job) -> None:
    """The remedy that the error names must leave nothing that `vqtok verify` complains of for ever."""
    gone = folders.source / "a/000003.jpg"
    gone.unlink()
    with pytest.raises(SourceError, match="1 files are gone"):
        folders.run()
    exclude = "source.exclude=a/000003.jpg"
    assert folders.run(exclude).complete
    said = "files of 1 samples, such as '000003', cannot be read now, as source.exclude allows"
    done = verified(folders, "--set", exclude)
    assert done.status == 0 and said in done.out
    assert verified(folders, "--quick", "--set", exclude).status == 0
    other = folders.source / "a/000004.jpg"
    other.write_bytes(other.read_bytes() + b"x")
    done = verified(folders, "--set", exclude)
    assert done.status == 1 and "changed, such as '000004.jpg'" in done.out
