"""Keys that came later, in plain trees, and in a copy of the package that has some."""

import json
import shutil
import sys
from typing import Annotated, Any

import pytest
from fixtures_store import cold
from pydantic import BaseModel
from support import ROOT, import_path, older_files

from pipeline.before import Before, completed, concise


class Inner(BaseModel):
    old: int = 1
    new: Annotated[tuple[int, ...], Before((1, 2))] = (3,)


class Outer(BaseModel):
    inner: Inner = Inner()
    old: str | None = None
    new: Annotated[str | None, Before(None)] = "x"


@pytest.mark.parametrize(
    ("tree", "full"),
    [
        ({}, {"new": None}),  # a whole section that is missing is not made up
        ({"inner": {}}, {"inner": {"new": [1, 2]}, "new": None}),
        ({"inner": {"new": [3]}, "new": "x"}, {"inner": {"new": [3]}, "new": "x"}),
        ({"inner": {"old": 1}, "old": None}, {"inner": {"old": 1, "new": [1, 2]}, "old": None, "new": None}),
        ({"inner": 5, "unknown": {"new": 1}}, {"inner": 5, "unknown": {"new": 1}, "new": None}),
    ],
)
def test_a_key_that_is_missing_means_what_was_done_before_it(tree: dict[str, Any], full: dict[str, Any]) -> None:
    assert completed(Outer, tree) == full
    assert completed(Outer, full) == full
    assert concise(Outer, full) == concise(Outer, tree) == tree


# --- a version with more keys -----------------------------------------------------------------------------

LATER = {
    "config/image.py": [
        (
            "    max_pixels: Annotated",
            '    frame: Annotated[Literal["first", "last"], Before("first")] = "first"\n    max_pixels: Annotated',
        ),
    ],
    "config/train.py": [
        ("    steps: Annotated", "    dropout: Annotated[float, Before(0.0)] = 0.1\n    steps: Annotated"),
        ("from pipeline.config.section", "from pipeline.before import Before\nfrom pipeline.config.section"),
    ],
    "models/tokenizers/vqtok.py": [
        ("    weights: str\n", '    rule: Annotated[str, Before("lookup")] = "lookup"\n    weights: str\n'),
        ("from pipeline.errors", "from pipeline.before import Before\nfrom pipeline.errors"),
    ],
}
"""What is replaced in a copy of the package, so that images, training and tokenizers have a key more."""

LOOK = """
import json, sys
from pipeline.config import load_config
from pipeline.errors import VqtokError
from pipeline.files import LocalFiles
from pipeline.jobs.plan import is_finished, job_identity, make_plan, refuse_other_identity
from pipeline.jobs.training.birth import find_result
from pipeline.models.tokenizers.vqtok import VqtokIdentity
from pipeline.store.schema.birth import create_or_compare, read_birth

def look(*overrides):
    config = load_config("job.yaml", ["source.exclude=train-1.tar", *overrides])
    store = LocalFiles(config.tokenize.store)
    birth = read_birth(store)
    ours = birth.model_copy(update={"identity": job_identity(config)})
    half = load_config("job.yaml", ["tokenizer.path=half-trained", *overrides])
    return {
        "finished": said(lambda: is_finished(make_plan(config), config)),
        "report": said(lambda: refuse_other_identity(store, config)),
        "tokenize": said(lambda: create_or_compare(store, ours) == birth),
        "same bytes": ours.to_json() == store.read("store.json") and ours.fingerprint == birth.fingerprint,
        "train": said(lambda: find_result(half)),
    }

def said(call):
    try:
        return call()
    except VqtokError as error:
        return str(error)

print(json.dumps([sorted(VqtokIdentity.model_fields), look("train.dropout=0"), look("image.frame=last")]))
"""


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """How a version with more keys sees what an older one made: with the values of then, and with others."""
    folder = tmp_path_factory.mktemp("later")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name, replacements in LATER.items():
        path = folder / "pipeline" / name
        text = path.read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        path.write_text(text)
    work, environment = older_files(folder / "work"), {"PYTHONPATH": import_path(folder)}
    done = cold(sys.executable, "-c", LOOK, environment=environment, folder=work)
    assert done.status == 0, done.err
    return list(json.loads(done.out))


def test_a_new_key_with_the_value_of_before_refuses_nothing(looks: list[Any]) -> None:
    fields, same, _ = looks
    assert "rule" in fields  # it is the other version that looks
    assert same == {"finished": True, "report": None, "tokenize": True, "same bytes": True, "train": None}


def test_a_new_key_with_another_value_is_named_with_both(looks: list[Any]) -> None:
    *_, other = looks
    line = 'image.frame: "last" here, "first" there'
    assert other["finished"] is False
    assert line in other["report"]
    assert f"identity.{line}" in other["tokenize"]
    assert not other["same bytes"]
    assert "\n  image.frame: last here, first there\n  train.dropout: 0.1 here, 0.0 there\n" in other["train"]
