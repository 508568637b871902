"""Labels from every place of a collection, classes that a store keeps, and what is said of what is missing."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_store import Job, jpeg, make_job, vqtok, write_shard

from pipeline.errors import ConfigError, IdentityMismatch
from pipeline.jobs.reporting import job as report
from pipeline.jobs.status import job as status
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store"]

KEYS = [f"{name}/{name}_{number}" for number in range(3) for name in ("1", "10", "2")]
INDEX = {"1": 0, "10": 1, "2": 2}


def write(folder: Path, keys: list[str], seed: int = 0) -> Path:
    for number, key in enumerate(keys):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{key}.jpg").write_bytes(jpeg(seed + number))
    return folder


def labels_of(job: Job) -> dict[str, int]:
    store = TokenStore(job.store)
    return dict(zip(store.keys, store.labels_of(np.arange(len(store))).tolist(), strict=True))


def job_of(folder: Path, source: Path, tokenizer: Path, **options: Any) -> Job:
    changes = {f"source.{name}": value for name, value in options.items()}
    base = str(source if source.is_dir() else source.parent)
    always = {"source.shards": str(source), "source.base": base, "source.keep": []}
    return make_job(folder, source, tokenizer, {**always, **changes})


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Job:
    """A finished job over three folders. Read only."""
    folder = tmp_path_factory.mktemp("image-folder")
    job = job_of(folder / "job", write(folder / "train", KEYS), tokenizer_folder, label="folder")
    assert job.run().complete
    return job


def test_folders_are_classes_and_the_store_keeps_their_names(image_folder: Job, tmp_path: Path) -> None:
    assert labels_of(image_folder) == {key: INDEX[key.partition("/")[0]] for key in KEYS}
    assert TokenStore(image_folder.store).classes == ("1", "10", "2")
    assert json.loads((image_folder.store / "store.json").read_text())["features"] == ["digests", "classes"]
    job = job_of(tmp_path / "job", image_folder.source, image_folder.tokenizer, label="folder")
    done = job.start().wait()
    assert (done.status, job.digest) == (0, image_folder.digest)
    assert "vqtok: 3 classes: 0 = 1, 1 = 10, 2 = 2; another order is that of a file in source.classes, in" in done.err


def test_every_way_to_say_it_gives_the_same_labels(image_folder: Job, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = {key: (image_folder.source / f"{key}.jpg").read_bytes() for key in KEYS}
    index = {key: INDEX[key.partition("/")[0]] for key in KEYS}
    documents = {key: json.dumps({"m": {"id": float(index[key])}}).encode() for key in KEYS}
    write_shard(tmp_path / "x.tar", [(key, {"jpg": images[key], "json": documents[key]}) for key in KEYS])
    (tmp_path / "names.txt").write_text("1\n10\n2\n")
    (tmp_path / "lines.txt").write_text("".join(f"{index[key]}\n" for key in sorted(KEYS)))
    (tmp_path / "keys.csv").write_text("".join(f"{key}.jpg,{key.partition('/')[0]}_\n" for key in KEYS))
    (tmp_path / "names_.txt").write_text("1_\n10_\n2_\n")
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["1", "10", "2"]}}
    cells = [{"bytes": images[key], "path": f"{key}.jpg"} for key in KEYS]
    table = pa.table({"image": cells, "label": [index[key] for key in KEYS]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    tar, folder, named = tmp_path / "x.tar", image_folder.source, {"classes": f"{tmp_path}/names.txt"}
    ways: list[tuple[Path, dict[str, Any], tuple[str, ...] | None]] = [
        (folder, {"label": "prefix:_", **named}, ("1", "10", "2")),
        (tar, {"label": "folder", **named}, ("1", "10", "2")),
        (tar, {"label": "json:m.id"}, None),
        (tar, {"label": f"table:{tmp_path}/lines.txt"}, None),
        (folder, {"label": f"table:{tmp_path}/lines.txt"}, None),
        (folder, {"label": f"table:{tmp_path}/keys.csv", "classes": f"{tmp_path}/names_.txt"}, ("1_", "10_", "2_")),
        (tmp_path / "x.parquet", {}, ("1", "10", "2")),
    ]
    for number, (source, options, classes) in enumerate(ways):
        job = job_of(tmp_path / f"job{number}", source, image_folder.tokenizer, **options)
        assert job.run().complete
        assert labels_of(job) == index, options
        assert TokenStore(job.store).classes == classes


def test_a_class_that_comes_later_fails_its_source_shard_and_shifts_nothing(image_folder: Job, tmp_path: Path) -> None:
    source = shutil.copytree(image_folder.source, tmp_path / "train")
    job = job_of(tmp_path / "job", source, image_folder.tokenizer, label="folder")
    shutil.copytree(image_folder.store, job.store)
    write(source, ["10/10_new"], 50)
    assert job.run().complete
    write(source, ["11/11_0"], 60)
    result = job.run()
    assert (result.committed, result.planned) == (2, 3)
    (reason,) = result.failures.values()
    assert (
        "the class '11' is not among the 3 of the store, which are fixed when it is made; name all of them in" in reason
    )
    assert "source.classes" in reason
    shutil.rmtree(source / "11")
    assert labels_of(job) == {**labels_of(image_folder), "10/10_new": 1}
    (tmp_path / "names.txt").write_text("1\n2\n10\n")
    with pytest.raises(
        IdentityMismatch, match=r"names\.txt: not the classes of the store \(there\): class 1 is '2' here"
    ):
        job.run(f"source.classes={tmp_path}/names.txt")


def test_a_folder_that_does_not_belong_there_can_be_taken_away_again(image_folder: Job, tmp_path: Path) -> None:
    source = shutil.copytree(image_folder.source, tmp_path / "train")
    job = job_of(tmp_path / "job", source, image_folder.tokenizer, label="folder")
    shutil.copytree(image_folder.store, job.store)
    write(source, ["10/10_new", "wrong/0"], 50)
    (reason,) = job.run().failures.values()
    assert "move it away and name 'wrong/*' below its folder in source.exclude" in reason
    shutil.rmtree(source / "wrong")
    (reason,) = job.run().failures.values()
    assert "wrong/0.jpg': No such file or directory; restore the file" in reason
    result = job.run(f'source.exclude=["{source}/wrong/*"]')
    assert (result.complete, result.rejected) == (True, 1)
    assert labels_of(job) == {**labels_of(image_folder), "10/10_new": 1}
    assert TokenStore(job.store).classes == ("1", "10", "2")


def test_a_table_counts_by_its_contents(image_folder: Job, tmp_path: Path) -> None:
    for name, labels in (("one", [0] * 9), ("copy", [0] * 9), ("other", [0] * 8 + [1])):
        (tmp_path / f"{name}.csv").write_text(
            "".join(f"{key},{label}\n" for key, label in zip(KEYS, labels, strict=True))
        )
    job = job_of(tmp_path / "job", image_folder.source, image_folder.tokenizer, label=f"table:{tmp_path}/one.csv")
    assert job.run().complete
    assert job.run(f"source.label=table:{tmp_path}/copy.csv").complete
    with pytest.raises(IdentityMismatch, match=r"identity\.source\.label"):
        job.run(f"source.label=table:{tmp_path}/other.csv")


def test_a_label_a_line_fetches_nothing_for_its_keys(image_folder: Job, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("0\n")
    write_shard(tmp_path / "a.tar", [("0", {"jpg": jpeg(0)})])
    job = job_of(tmp_path / "job", Path("unused"), image_folder.tokenizer, label=f"table:{tmp_path}/lines.txt")
    with pytest.raises(ConfigError, match=r"would have to be fetched for them; write `key,label` lines instead"):
        job.run(f"source.shards=pipe:cat {tmp_path}/a.tar", "source.base=null", "source.allow_pipe=true")


def test_what_no_sample_has_is_said_once_and_counted(
    image_folder: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.tar", [(f"{n}", {"jpg": jpeg(n), "caption": b"x"}) for n in range(3)])
    job = job_of(tmp_path / "job", tmp_path / "*.tar", image_folder.tokenizer, keep=["txt"])
    result = job.run()
    assert capsys.readouterr().err.count("\n") == 1
    assert "rows: 6 without a label, 6 without .txt" in str(result)
    assert [commit["missing"] for commit in job.commits.values()] == [{"txt": 3}] * 2
    assert "missing              rows: 6 without a label, 6 without .txt" in str(report.run(job.config()))
    state = status.run(job.config())
    assert (state.unlabelled, state.missing) == (6, {"txt": 6})
    assert (
        "rows: 6 without a label, 6 without .txt\n"
        in vqtok("status", "--config", job.file, folder=job.output).wait().out
    )


def test_the_warning_names_what_is_there(image_folder: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(tmp_path / "a.tar", [("0", {"jpg": jpeg(0), "caption": b"x"})])
    job_of(tmp_path / "job", tmp_path / "a.tar", image_folder.tokenizer, keep=["txt"]).run()
    assert (
        "a.tar: no sample has what the configuration asks for (source.label: cls; source.keep: txt); there is: "
        "caption, jpg. Name what is there" in capsys.readouterr().err
    )
    nothing = job_of(tmp_path / "other", tmp_path / "a.tar", image_folder.tokenizer, label=None)
    nothing.run()
    assert capsys.readouterr().err == ""


def test_the_warning_shows_how_keys_differ_from_those_of_the_table(
    image_folder: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "paths.csv").write_text("".join(f"/data/{key}.jpg,0\n" for key in KEYS))
    job = job_of(tmp_path / "job", image_folder.source, image_folder.tokenizer, label=f"table:{tmp_path}/paths.csv")
    assert job.run().complete
    assert (
        "paths.csv, which has lines such as that of '/data/1/1_0', and none for '1/1_0'); there is: jpg"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("a;0\nb;1\n", r"the label 'a;0', number 1, where a comma would separate it from a key, is no integer"),
        ("label\n0\n", r"the label 'label', number 1, .* is no integer; name all classes in source\.classes"),
        ("a,0\nb,cat\n", r"the label 'cat' of 'b' is no integer; name all classes in source\.classes"),
    ],
)
def test_a_label_that_is_none_is_refused_with_its_line(
    image_folder: Job, tmp_path: Path, lines: str, reason: str
) -> None:
    (tmp_path / "labels.csv").write_text(lines)
    job = job_of(tmp_path / "job", image_folder.source, image_folder.tokenizer, label=f"table:{tmp_path}/labels.csv")
    with pytest.raises(ConfigError, match=r"source\.label: .*labels\.csv: " + reason):
        job.run()


@pytest.mark.parametrize(("samples", "committed"), [(9, 1), (10, 0)])
def test_a_run_without_a_row_fails_every_time(image_folder: Job, tmp_path: Path, samples: int, committed: int) -> None:
    write_shard(tmp_path / "a.tar", [(f"{n:02}", {"mp": b"x"}) for n in range(samples)])
    job = job_of(tmp_path / "job", tmp_path / "a.tar", image_folder.tokenizer)
    for _ in range(2):
        done = job.start().wait()
        assert done.status == 1
        said = done.out + done.err
        if committed:
            assert "no row is in the store: all samples were rejected" in said
        else:
            assert "10 of 10 samples rejected, more than tokenize.max_reject_rate = 0.5: 10 x no image member" in said
    assert len(job.commits) == committed
