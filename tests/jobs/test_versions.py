"""What other versions wrote: older stores and trainings are gone on with, newer ones are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_store import all_files
from safetensors.numpy import load_file
from support import older_files

from pipeline.config import Config, load_config
from pipeline.errors import StoreError
from pipeline.files import LocalFiles
from pipeline.jobs import clean
from pipeline.jobs.plan import make_plan
from pipeline.jobs.reporting import job as report
from pipeline.jobs.showing import job as show
from pipeline.jobs.status import job as status
from pipeline.jobs.tokenizing import job as tokenize
from pipeline.jobs.training import job as train
from pipeline.jobs.verifying.commits import check_commits
from pipeline.jobs.verifying.contents import check_contents
from pipeline.store import TokenStore
from pipeline.store.schema.birth import read_birth
from pipeline.store.schema.commits import committed_parts, read_commits


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an older version, which is the working folder."""
    folder = older_files(tmp_path / "older")
    monkeypatch.chdir(folder)
    return folder


def job(*overrides: str) -> Config:
    return load_config("job.yaml", overrides)


def executions(store: str) -> list[Any]:
    files = LocalFiles(store)
    return [commit.execution for commit in read_commits(files, sorted(committed_parts(files)))]


def test_an_older_store_goes_on_as_it_was_born(older: Path) -> None:
    born = Path("store/store.json").read_bytes()
    # What torch it was made with, and on what processor, is not what this is about.
    assert tokenize.run(job(), allow_execution_change=True, show_progress=False).complete
    assert Path("store/store.json").read_bytes() == born == read_birth(LocalFiles("store")).to_json()
    result = check_commits(job())
    check_contents(job(), result, show_progress=False)
    assert (result.problems, result.samples) == ([], 8)
    assert status.run(job()).complete

    assert tokenize.run(job("tokenize.store=fresh"), show_progress=False).complete
    fresh = json.loads(Path("fresh/store.json").read_text())
    assert fresh.pop("features") == ["digests"]
    fresh.pop("sha256", None)
    assert fresh == json.loads(born)
    resumed, fresh = TokenStore("store"), TokenStore("fresh")
    assert [*resumed.keys] == [*fresh.keys] == [f"{row:02d}" for row in range(8)]
    if len({json.dumps(execution) for execution in executions("store")}) == 1:
        assert resumed.content_digest == fresh.content_digest


def test_an_older_training_goes_on_where_it_was_killed(older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = job("tokenizer.path=half-trained")
    assert train.run(config).result.steps == 4
    assert "resumed from the checkpoint of step 2" in capsys.readouterr().err
    born = json.loads(Path("half-trained/train.json").read_text())
    assert (born["history"], born["result"]["steps"]) == ([], 4)
    assert not train.run(config).trained
    # The tokenizer beside it was trained without a break; other processors round in other ways.
    resumed, unbroken = (load_file(f"{folder}/model.safetensors") for folder in ("half-trained", "tokenizer"))
    assert resumed.keys() == unbroken.keys()
    assert all(np.allclose(resumed[name], unbroken[name], atol=1e-2) for name in resumed)


NEWER: dict[str, Callable[[], object]] = {
    "reading": lambda: TokenStore("store", partial=True),
    "the plan": lambda: make_plan(job()),
    "tokenize": lambda: tokenize.run(job(), show_progress=False),
    "status": lambda: status.run(job()),
    "verify": lambda: check_commits(job()),
    "show": lambda: show.run("store", "00"),
    "report": lambda: report.run(job()),
    "clean": lambda: clean.run(job()),
}


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder with a store of a version to come: other keys everywhere."""
    folder = older_files(tmp_path_factory.mktemp("newer") / "work")
    (commit,) = (folder / "store/commits").iterdir()
    for path in (folder / "store/store.json", folder / "store/manifest.json", commit):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"features": ["ragged", "frame"], "frames": 3}))
    return folder


@pytest.mark.parametrize("name", NEWER)
def test_a_store_with_an_unknown_feature_is_refused_with_the_remedy(
    newer: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(newer)
    before = all_files(Path("store"))
    with pytest.raises(StoreError, match=r"store: the store has 'ragged', 'frame' among its features.* upgrade vqtok"):
        NEWER[name]()
    assert all_files(Path("store")) == before
