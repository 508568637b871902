"""Secrets of configurations: in every form through the real commands, and never in what is printed or written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from fixtures_store import Job, all_files, good_samples, make_job, vqtok, write_shard
from fixtures_training import TrainingJob, edit_birth
from support import sampled

from pipeline.cli import main
from pipeline.errors import TokenizerError
from pipeline.jobs.training.birth import begin, find_result

pytest_plugins = ["fixtures_store", "fixtures_training"]

S = "hunter2s3cr3t"
VARIABLE = "NUMBER_OF_IT"
"""Not called like a secret, and holding one all the same."""

URLS = [
    f"https://user:{S}@host/*.tar",
    f"https://user:{S}@host/{{a,b.tar",
    f"https://user:a/{S}@host/a.tar",
    f"https://user:a {S}@host/a.tar",
    f"https://{S}@host/a.tar",
    f"https://host/a.tar?X-Amz-Signature={S}",
    f"https://host/a.tar?{S}",
    f"https://host/a.tar#{S}",
    f"https://[x/a.tar?{S}",
    f"hf://user:{S}@datasets/a/b.parquet",
    f"hf://datasets/a/b.parquet?token={S}",
    f"s3://key:{S}@bucket/a.tar",
    f"s3://bucket/a.tar?X-Amz-Credential={S}",
    f"unknown://user:{S}@host/a.tar",
    f"nowhere/{{https://user:{S}@host/a.tar",
    f"pipe:curl {S} {{",
    f"pipe: curl {S}",
]

CONFIGURATIONS: dict[str, Mapping[str, Any]] = {
    **{f"shards {url}": {"source.shards": url, "source.base": None} for url in URLS},
    **{f"base {url}": {"source.base": url} for url in URLS},
    **{f"exclude {url}": {"source.exclude": [url, "*"]} for url in URLS},
    **{f"store {url}": {"tokenize.store": url} for url in URLS if not url.startswith("pipe") and "nowhere" not in url},
    **{f"tokenizer {url}": {"tokenizer.path": url} for url in URLS if not url.startswith("pipe")},
    **{f"label {url}": {"source.label": f"table:{url}"} for url in URLS},
    **{f"classes {url}": {"source.classes": url} for url in URLS},
    **{f"variable in {key}": {key: f"${{{VARIABLE}}}"} for key in (
        "image.size", "image.crop", "image.max_pixels", "tokenize.batch_size", "tokenize.precision",
        "tokenize.decode_workers", "tokenize.max_reject_rate", "source.allow_pipe", "source.nested", "tokenize.codec",
    )},
    "variables in a list": {"image.size": ["${NUMBER_OF_IT}", 3]},
    "variable in a section": {"image.views": {"random": "${NUMBER_OF_IT}"}},
    "variable in a key's place": {"image.views": {"random": 2, "scale": ["${NUMBER_OF_IT}", 1]}},
    "variable with more": {"tokenize.layout": f"no${{{VARIABLE}}}", "image.size": f"0${{{VARIABLE}}}"},
}  # fmt: skip
"""What is wrong with a configuration that holds a secret, by `section.key`."""


def answer(*arguments: object) -> tuple[int, str]:
    """Exit status and all that a command prints, in this process."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="vqtok")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout + result.stderr


@pytest.fixture(autouse=True)
def variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, S)


def test_no_command_repeats_a_secret(collection: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    told = {}
    for number, (what, changes) in enumerate(CONFIGURATIONS.items()):
        job = make_job(tmp_path / f"{number}", collection, tokenizer_folder, changes)
        for command in (["tokenize"], ["tokenize", "--dry-run"], ["status", "--json"], ["verify", "--quick"]):
            if command == ["tokenize"] and what.startswith(("base pipe", "exclude pipe", "tokenizer")):
                continue  # nothing is wrong before there is work
            status, text = answer(*command, "--config", job.file)
            if S in text or "Traceback" in text or (status == 0 and command == ["tokenize"]):
                told[f"{what}: {command[0]}"] = (status, text)
    assert not told


@pytest.mark.parametrize("url", URLS)
def test_nor_does_a_command_that_takes_a_url(url: str, tmp_path: Path) -> None:
    for arguments in (
        ["inspect", url],
        ["inspect", "--json", url],
        ["init", url],
        ["show", url, "key"],
        ["export", url, tmp_path / "out", "--format", "npy"],
        ["import", "diffusers", url, tmp_path / "imported"],
        ["tokenize", "--config", tmp_path / "none.yaml", "--set", url],
    ):
        status, text = answer(*arguments)
        assert status in (1, 2), text
        assert S not in text


BROKEN = {
    "unclosed": f"source: {{shards: https://user:{S}@host/a.tar",
    "indented": f"source:\n  shards: {S}\n base: x",
    "tabs": f"source:\n\tshards: {S}",
    "tag": f"source: !!python/object/apply:os.system ['{S}']",
    "alias": f"source: *{S.replace('s', 'x')}\nshards: {S}",
    "bytes": f"source: {S}\n\x00",
}


@pytest.mark.parametrize("what", BROKEN)
def test_nor_is_a_line_of_a_file_that_is_no_yaml_repeated(what: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(BROKEN[what])
    status, text = answer("status", "--config", tmp_path / "job.yaml")
    assert (status, S in text) == (2, False), text
    assert "not valid YAML: " in text


def leaks(folder: Path) -> list[str]:
    return [path for path, data in all_files(folder).items() if S.encode() in data]


@pytest.fixture
def piped_training(images: Path, tmp_path: Path) -> TrainingJob:
    """A training on the output of a command that holds a secret, out of the environment."""
    job = TrainingJob(tmp_path / "job", images).write(steps=2, warmup_steps=0, evaluate_every=2, checkpoint_every=2)
    tree = yaml.safe_load(job.file.read_text())
    tree["source"] = {"shards": f"pipe:: ${{{VARIABLE}}}; cat {images}/train-{{0,1}}.tar", "allow_pipe": True}
    tree["train"]["holdout"] = f"pipe:: ${{{VARIABLE}}}; cat {images}/heldout.tar"
    tree["source"]["exclude"] = [f"https://u:{S}@h/x.tar"]
    job.file.write_text(yaml.safe_dump(tree))
    return job


def test_what_is_shared_holds_none(piped_training: TrainingJob) -> None:
    job = piped_training
    done = job.start("train", environment={VARIABLE: S}).wait()
    assert (done.status, S in done.out + done.err) == (0, False), done.err
    assert leaks(job.tokenizer) == []
    assert job.born["configuration"]["source"]["shards"] == ["pipe:…"]
    assert find_result(job.config()) is not None
    status, text = answer("tokenize", "--config", job.file, "--no-progress")
    assert (status, S in text) == (0, False), text
    for command in (["status", "--json"], ["verify"], ["report"]):
        status, text = answer(*command, "--config", job.file)
        assert (status, S in text) == (0, False), text
    assert leaks(job.folder / "store") + leaks(job.folder / "store-report") == []
    # What older versions left in train.json stays comparable, and goes when the file is written again.
    old = job.config().model_dump(mode="json", include={"source", "image", "train"}, exclude={"image": {"views"}})
    history = [{"step": 1, "field": "source.shards", "from": [f"pipe:{S}"], "to": ["a.tar"]}]
    edit_birth(job, lambda birth: birth.update(configuration=old, history=history, sources=None))
    assert leaks(job.tokenizer) == ["train.json"]
    assert find_result(job.config()) is not None
    with pytest.raises(TokenizerError, match=r"source\.shards: \[\"x\.tar\"\] here, \[\"pipe:…\"\] there") as caught:
        find_result(job.config("source.shards=x.tar"))
    assert S not in str(caught.value)
    begin(job.config("train.steps=3"), 2)
    assert leaks(job.tokenizer) == []


@pytest.mark.parametrize(
    "command", sampled(f"echo {S}; echo {S} >&2; exit 3", f"cat {S}/a.tar", f"cat TAR; exit '{S}'")
)
def test_failures_of_commands_hold_none(command: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", good_samples(0, 2))
    shards = f"pipe:{command.replace('TAR', str(tmp_path / 'a.tar'))}"
    changes = {"source.shards": shards, "source.base": None, "source.allow_pipe": True}
    job: Job = make_job(tmp_path / "job", tmp_path, tokenizer_folder, changes)
    done = vqtok("tokenize", "--config", job.file, folder=job.output).wait()
    assert done.status == 1
    assert S not in "".join(line for line in done.err.splitlines() if "pipe/" in line)
    assert leaks(job.store) == []
    found = json.loads(answer("status", "--json", "--config", job.file)[1])
    assert [S in failed["reason"] for failed in found["failed"]] == [False]
