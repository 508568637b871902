"""The autoregressive example, in real processes: it learns, resumes exactly, shares the rows, draws pictures."""

import math
import os
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import train_ar
from fixtures_examples import SCRIPTS, SMALL, TABLE, Script, metrics, zero_order
from fixtures_store import Child, Job, cold, make_job, save_tiny_tokenizer, store_of_rows
from PIL import Image
from support import ROOT, free_port, import_path
from torch.nn import functional as F
from training.data import open_loaders
from training.drawing import Drawing
from training.transformer import Size

from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_examples"]

BITS = ("train", "held_out", "class_hidden")
AR = Script("train_ar")
TASK = train_ar.NextToken()


def test_no_token_is_predicted_from_itself_or_from_later_ones(random_store: Path) -> None:
    store = TokenStore(random_store)
    torch.manual_seed(0)
    model = TASK.model(store, num_classes=3, size=Size(dim=16, depth=2, heads=2))
    torch.nn.init.normal_(model.head.weight)
    batch, class_B = store.read([0, 1]), torch.tensor([0, 2])
    before_last_BlC = store.idxBl_to_var_input(batch.idx_Bl)[:, :-1]
    logits_BLK = model(before_last_BlC, class_B)
    for position in range(7):
        changed_BlC = before_last_BlC.clone()
        changed_BlC[:, position] += 1
        same_BL = model(changed_BlC, class_B).isclose(logits_BLK, atol=1e-5).all(dim=2)
        assert same_BL[:, : position + 1].all()
        assert not same_BL[:, position + 1 :].any()
    loss = TASK.nats(model, store, batch, class_B, seed=()).mean()
    expected = F.cross_entropy(logits_BLK.transpose(1, 2), torch.cat(batch.idx_Bl, dim=1))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_samples_are_of_the_likeliest_codes_and_repeat(random_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def likes_codes_near_seven(x_BlC: torch.Tensor, class_B: torch.Tensor) -> torch.Tensor:
        logits_K = -(torch.arange(16.0) - 7).abs()
        return logits_K.expand(len(x_BlC), x_BlC.shape[1] + 1, 16)

    store, class_B = TokenStore(random_store), torch.zeros(50, dtype=torch.int64)
    model = torch.nn.Module()
    monkeypatch.setattr(model, "forward", likes_codes_near_seven)
    idx_Bl, again_Bl, other_Bl = (TASK.sample(model, store, class_B, Drawing(1.0, 3, seed)) for seed in (0, 0, 1))
    assert [tuple(idx_BL.shape) for idx_BL in idx_Bl] == [(50, 3), (50, 5)]
    assert set(torch.cat(idx_Bl, dim=1).flatten().tolist()) == {6, 7, 8}
    assert all(map(torch.equal, idx_Bl, again_Bl))
    assert not all(map(torch.equal, idx_Bl, other_Bl))


def test_of_several_views_training_has_another_one_every_epoch(tmp_path: Path) -> None:
    for views, which in ((2, "random"), (None, 0)):
        of_views = {} if views is None else {"views": views, "features": ("views",)}
        store = TokenStore(store_of_rows(tmp_path / f"store-{views}", [40], table=TABLE, **of_views))
        training, held_out = open_loaders(store, batch_size=8, seed=0, rank=0, world_size=1)
        assert (training.ordered.views.which, held_out.ordered.views.which) == (which, 0)


def test_it_learns_and_draws_a_picture(finished: Job, tmp_path: Path) -> None:
    output = tmp_path / "ar"
    done = AR.trained("--config", finished.file, "--output", output, "--steps", "60", "--every", "20", folder=tmp_path)
    first, *_, last = metrics(output)
    assert f"zero-order entropy of the store is {zero_order(TokenStore(finished.store)):.3f}" in done.out
    assert [line["step"] for line in metrics(output)] == [20, 40, 60]
    assert last["train"] < first["train"] < math.log2(16) + 0.1
    assert last["held_out"] < first["held_out"]
    height, width = 16, 24
    with Image.open(output / "samples.png") as picture:
        assert picture.size == (8 * (width + 2) + 2, 2 * (height + 2) + 2)
        assert len(picture.getcolors(100_000) or []) > 10


@pytest.mark.slow
@pytest.mark.parametrize("renames", [2, 3])
def test_a_killed_run_resumes_to_the_same_figures(finished: Job, tmp_path: Path, renames: int) -> None:
    AR.check_kill(tmp_path, "--config", finished.file, "--steps", "17", every=3, renames=renames)
    assert len(metrics(tmp_path / "killed")) == 6


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(finished: Job, tmp_path: Path) -> None:
    command = ["--config", finished.file, "--output", tmp_path / "ar", "--steps", "2", "--no-sample"]
    AR.trained(*command, folder=tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "ar").iterdir()}
    AR.trained(*command, folder=tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "ar").iterdir()} == before


def note_rows(notes: str, arguments: list[str], dies_at: int = 0) -> None:
    """The script, noting the keys of every batch in a file for each process; the last rank is killed in a step."""
    import torch
    from accelerate import PartialState

    sys.path.insert(0, str(SCRIPTS))
    sys.argv = ["train_ar.py", *arguments]
    import train_ar

    nats = train_ar.NextToken.nats

    def noting(task: Any, model: Any, store: Any, batch: Any, class_B: Any, seed: Any) -> Any:
        kind, world = "train" if torch.is_grad_enabled() else "held-out", PartialState()
        noted = Path(notes, f"{kind}-{world.process_index}")
        with noted.open("a") as file:
            file.write(f"{' '.join(batch.key)}\n")
        if kind == "train" and world.is_last_process and len(noted.read_text().splitlines()) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return nats(task, model, store, batch, class_B, seed)

    train_ar.NextToken.nats = noting  # type: ignore[method-assign]
    train_ar.main()


def as_two_ranks(arguments: list[str], folder: Path, dies_at: int = 0) -> list[int]:
    """Exit statuses of two processes with the variables that torchrun sets."""
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    environments = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    ranks = [
        Child(note_rows, str(folder), arguments, dies_at, folder=folder / "output", environment=environment)
        for environment in environments
    ]
    return [rank.wait().status for rank in ranks]


def under_torchrun(arguments: list[str], folder: Path, dies_at: int = 0) -> list[int]:
    """Exit status of torchrun as the Makefile calls it."""
    code = "import sys; sys.path.append(sys.argv[1]); import test_train_ar as t\n"
    code += "t.note_rows(sys.argv[2], sys.argv[4:], int(sys.argv[3]))"
    (folder / "noting.py").write_text(code)
    torchrun = [Path(sys.executable).parent / "torchrun", "--standalone", "--nproc-per-node", "2"]
    found = {"PYTHONPATH": import_path(ROOT, ROOT / "tests", SCRIPTS)}
    given = (Path(__file__).parent, folder, str(dies_at), *arguments)
    return [cold(*torchrun, folder / "noting.py", *given, environment=found).status]


def steps_of(folder: Path, kind: str = "train") -> list[list[str]]:
    """Keys of every batch that was noted, for each process."""
    return [(folder / f"{kind}-{rank}").read_text().splitlines() for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("launch", [as_two_ranks, pytest.param(under_torchrun, marks=pytest.mark.slow)])
def test_two_processes_see_every_row_once_and_learn_what_one_does(
    random_store: Path, tmp_path: Path, launch: Callable[..., list[int]]
) -> None:
    command = [*SMALL, "--store", str(random_store), "--epochs", "1", "--no-sample", "--no-classes"]
    AR.trained(*command, "--batch-size", "2", "--output", tmp_path / "one", folder=tmp_path)
    assert set(launch([*command, "--batch-size", "1", "--output", str(tmp_path / "two")], tmp_path)) == {0}
    trained_on, held_out = steps_of(tmp_path), steps_of(tmp_path, "held-out")
    assert [len(keys) for keys in trained_on] == [19, 19]
    assert [len(set(keys)) for keys in held_out] == [1, 1]  # evaluated twice, the second time without classes
    seen = Counter([*trained_on[0], *trained_on[1], *set(held_out[0]), *set(held_out[1])])
    assert seen == Counter(TokenStore(random_store).keys)
    [one], [two] = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert {name: two[name] for name in BITS} == pytest.approx({name: one[name] for name in BITS}, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("launch", [as_two_ranks, pytest.param(under_torchrun, marks=pytest.mark.slow)])
def test_two_processes_that_are_killed_resume_and_count_every_row_once(
    random_store: Path, tmp_path: Path, launch: Callable[..., list[int]]
) -> None:
    """Killed in the middle of the first of two epochs, between two checkpoints."""
    command = [*SMALL, "--store", str(random_store), "--epochs", "2", "--every", "4", "--no-sample"]
    command += ["--batch-size", "1", "--output"]
    undisturbed, killed, resumed = (tmp_path / name for name in ("undisturbed", "killed", "resumed"))
    for folder in (undisturbed, killed, resumed):
        folder.mkdir()
    output = str(tmp_path / "ar")
    assert set(as_two_ranks([*command, str(tmp_path / "whole")], undisturbed)) == {0}
    assert 0 not in launch([*command, output], killed, dies_at=11)
    assert [line["step"] for line in metrics(tmp_path / "ar")] == [4, 8]
    assert set(launch([*command, output], resumed)) == {0}
    steps = [before[:8] + after for before, after in zip(steps_of(killed), steps_of(resumed), strict=True)]
    assert steps == steps_of(undisturbed)
    assert [len(keys) for keys in steps] == [38, 38]
    held_out = {key for keys in steps_of(resumed, "held-out") for key in keys}
    for epoch in (slice(19), slice(19, 38)):
        assert Counter([*steps[0][epoch], *steps[1][epoch], *held_out]) == Counter(TokenStore(random_store).keys)
    for name in ("metrics.jsonl", "checkpoint.safetensors"):
        assert (tmp_path / "ar" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_bad_input_gives_one_message(finished: Job, random_store: Path, tmp_path: Path) -> None:
    """Value, file and remedy, no traceback."""
    output = tmp_path / "ar"
    file = tmp_path / "file"
    file.touch()
    implicit = store_of_rows(tmp_path / "implicit", [40])
    empty = store_of_rows(tmp_path / "empty", [0], table=TABLE)
    unfinished = store_of_rows(tmp_path / "unfinished", [40], table=TABLE)
    (unfinished / "manifest.json").unlink()
    foreign = save_tiny_tokenizer(tmp_path / "foreign", seed=1)
    cases: list[tuple[int, str, list[str | Path]]] = [
        (2, "--store", []),
        (2, "--heads 3", ["--store", random_store, "--heads", "3"]),
        (2, "no-such.yaml", ["--config", tmp_path / "no-such.yaml"]),
        (1, "no-such-store", ["--store", tmp_path / "no-such-store"]),
        (1, "still pending", ["--store", unfinished]),
        (1, "implicit", ["--store", implicit]),
        (2, "0 images", ["--store", empty]),
        (2, "--batch-size 39", ["--store", random_store, "--batch-size", "39"]),
        (
            1,
            "only pictures need it: name it with --tokenizer, or say --no-sample",
            ["--store", finished.store, "--tokenizer", tmp_path / "no-such-folder"],
        ),
        (2, "the one that made", ["--store", finished.store, "--tokenizer", foreign]),
        (1, str(file), ["--store", random_store, "--output", file]),
        (2, "choose another --output", ["--store", random_store, "--output", finished.tokenizer]),
    ]
    before = sorted(finished.tokenizer.iterdir())
    for status, said, arguments in cases:
        assert said in AR.refused("--output", output, *arguments, folder=tmp_path, status=status)
        assert not (output / "checkpoint.safetensors").exists()
    assert sorted(finished.tokenizer.iterdir()) == before


@pytest.mark.slow
def test_other_settings_and_damaged_files_do_not_resume(random_store: Path, tmp_path: Path) -> None:
    output = tmp_path / "ar"
    command = ["--store", random_store, "--output", output, "--steps", "2", "--no-sample"]
    AR.trained(*command, folder=tmp_path)
    assert "lr: 0.5 here, 0.002 there" in AR.refused(*command, "--lr", "0.5", folder=tmp_path, status=2)
    (output / "checkpoint.safetensors").write_bytes(b"damaged")
    message = AR.refused(*command, folder=tmp_path, status=1)
    assert str(output / "checkpoint.safetensors") in message
    assert "delete" in message
    (output / "checkpoint.safetensors").unlink()
    AR.trained(*command, "--lr", "0.5", folder=tmp_path)  # nothing is lost


@pytest.mark.slow
def test_a_diverging_run_says_so(random_store: Path, tmp_path: Path) -> None:
    command = ["--store", random_store, "--output", tmp_path / "ar", "--no-sample", "--warmup", "0"]
    assert "choose --lr below 1e+30" in AR.refused(*command, "--lr", "1e30", folder=tmp_path, status=1)


@pytest.mark.slow
def test_a_layout_that_cannot_be_decoded_costs_only_the_picture(
    collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", collection, tokenizer_folder, {"tokenize.layout": "diagonal"})
    assert job.run().complete
    done = AR.trained("--config", job.file, "--steps", "2", folder=tmp_path)
    assert "no picture of new images: layout 'diagonal' leaves cells of the image out" in done.out
    assert sorted(path.name for path in (tmp_path / "job" / "store-ar").glob("[!.]*")) == [
        "checkpoint.safetensors",
        "metrics.jsonl",
        "settings.json",
    ]


@pytest.mark.slow
def test_the_benchmark_compares_equal_work(finished: Job, tmp_path: Path) -> None:
    script = (sys.executable, SCRIPTS / "bench_ar.py", "--batches", "1", "--rounds", "1", "--config")
    done = cold(*script, finished.file)
    assert done.status == 0, done.err
    assert len(re.findall(r"^\| .* \| [\d.,]+ ms \| [\d.,]+ ms \| [\d.]+ \|$", done.out, re.MULTILINE)) == 3
    other = make_job(tmp_path / "other", finished.source, save_tiny_tokenizer(tmp_path / "tokenizer", seed=1))
    shutil.copytree(finished.store, other.store)
    done = cold(*script, other.file)
    assert done.status == 1
    assert "the images are not those of the store" in done.err
