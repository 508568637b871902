"""A tokenizer of another kind all the way through: tokenize, read, load, verify, show, report.

Nothing but the registries knows the guest of `guest_kind`: two files of weights, a layout of two scales, a rule that
needs an array and gives a sequence of another length.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import guest_kind
import numpy as np
import pytest
import torch
import zarr
from damage import rewrite
from fixtures_store import COLLECTION, REJECTED, ROWS, Job, make_job
from guest_kind import CODES, LENGTH, save_projection
from guest_network import RunningSum

from pipeline.errors import CorruptStore, IdentityMismatch, StoreError
from pipeline.jobs.reporting import job as report
from pipeline.jobs.showing import job as show
from pipeline.jobs.showing.text import as_text
from pipeline.jobs.verifying.commits import Verification, check_commits
from pipeline.jobs.verifying.contents import check_contents
from pipeline.jobs.verifying.reencoding import encode_again
from pipeline.loader import MixtureLoader, TokenLoader
from pipeline.models.rules.known import RULES
from pipeline.models.tokenizers.registry import KINDS
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store"]

RULE = "tokens.zarr/rule/running-sum"


@pytest.fixture(scope="module", autouse=True)
def guest_is_known() -> Iterator[None]:
    """All that it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, guest_kind.NAME, guest_kind.__name__)
        patch.setitem(RULES, RunningSum.name, RunningSum())
        yield


@pytest.fixture(scope="module")
def guest(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished job. Read only: use `copied_guest` to change its store."""
    folder = tmp_path_factory.mktemp("guest")
    job = make_job(folder, collection, save_projection(folder / "tokenizer"), {"tokenize.layout": "pyramid"})
    assert job.run().complete
    return job


@pytest.fixture
def copied_guest(guest: Job, tmp_path: Path) -> Job:
    job = make_job(tmp_path / "copied", guest.source, guest.tokenizer, {"tokenize.layout": "pyramid"})
    shutil.copytree(guest.store, job.store)
    return job


def verified(job: Job) -> Verification:
    result = check_commits(job.config())
    check_contents(job.config(), result, show_progress=False)
    encode_again(job.config(), result, 1, show_progress=False)
    return result


def test_the_store_is_what_the_guest_says(guest: Job) -> None:
    birth = json.loads((guest.store / "store.json").read_text())
    identity = json.loads((guest.tokenizer / "config.json").read_text())["identity"]
    assert birth["identity"]["tokenizer"] == {"kind": guest_kind.NAME, **identity}
    assert (birth["var_input"], birth["token_dtype"]) == ("running-sum", "uint16")
    store = TokenStore(guest.store)
    assert (len(store), store.vocab_size, store.embedding_dim) == (ROWS, CODES, LENGTH)
    assert (store.geometry.layout, store.block_lengths) == ("pyramid", (1, 6))
    group = zarr.open_group(str(guest.store / RULE), mode="r")
    assert np.array_equal(group["start"][...], np.arange(LENGTH))  # any Zarr reader finds it


def test_embeddings_follow_its_rule_without_the_model(guest: Job) -> None:
    store = TokenStore(guest.store)
    idx_Bl = store.read(slice(None)).idx_Bl
    x_BLC = store.idxBl_to_var_input(idx_Bl)
    codes_BLC = store.codebook[torch.cat(idx_Bl, dim=1)]
    assert x_BLC.shape == (ROWS, store.rule.sequence_length(store.block_lengths), LENGTH)
    assert torch.equal(x_BLC[:, 0], torch.arange(LENGTH).float().expand(ROWS, -1))
    torch.testing.assert_close(x_BLC[:, 1:], codes_BLC.cumsum(dim=1) + torch.arange(LENGTH).float())
    # What a rule computes is rounded once: sums of rounded codes would be others.
    assert torch.equal(store.idxBl_to_var_input(idx_Bl, torch.bfloat16), x_BLC.to(torch.bfloat16))


def test_it_is_loaded_verified_shown_and_reported_like_any_other(guest: Job) -> None:
    store = TokenStore(guest.store)
    batch = next(iter(TokenLoader(store, batch_size=16, shuffle=True)))
    assert [tuple(block.shape) for block in batch.idx_Bl] == [(16, 1), (16, 6)]
    assert all(map(torch.equal, batch.idx_Bl, store.read(batch.row).idx_Bl))

    result = verified(guest)
    assert (result.problems, result.warnings) == ([], [])
    assert (result.rows_encoded_again, result.rows_that_differ) == (ROWS, 0)

    found = as_text(show.run(str(guest.store), COLLECTION["train-0000.tar"][0][0], show_progress=False))
    assert "7 tokens, layout pyramid of a grid of 2 x 3" in found
    assert "block 1, 6 tokens" in found

    made = report.run(guest.config())
    assert (made.written, made.rejected) == (ROWS, len(REJECTED))
    assert made.psnr is not None and made.psnr > 5
    assert made.picture is not None


def test_a_mixture_has_the_rule_of_its_stores_and_cannot_stack_it(guest: Job) -> None:
    store = TokenStore(guest.store)
    mixed = MixtureLoader([store, TokenStore(guest.store)], [1, 1], 8)
    batch = next(iter(mixed))
    assert torch.equal(mixed.idxBl_to_var_input(batch.idx_Bl), store.idxBl_to_var_input(batch.idx_Bl))
    stacked = MixtureLoader([store, TokenStore(guest.store)], [1, 1], 8, offsets=[0, CODES])
    with pytest.raises(StoreError, match=r"follow the rule 'running-sum', and are not rows of one table"):
        stacked.idxBl_to_var_input(batch.idx_Bl)


def test_tokens_of_another_rule_array_mean_something_else(guest: Job, copied_guest: Job) -> None:
    path = copied_guest.store / "store.json"
    rewrite(path, rule_digest="0" * 64)
    stores = [TokenStore(job.store) for job in (guest, copied_guest)]
    with pytest.raises(StoreError, match="have different codebooks"):
        MixtureLoader(stores, [1, 1], 8)


def test_a_reader_that_does_not_know_the_rule_refuses(guest: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, "running-sum")
    store = TokenStore(guest.store)
    idx_Bl = store.read([0]).idx_Bl  # tokens are tokens
    with pytest.raises(
        StoreError, match=r"follow the rule 'running-sum', and this version of vqtok knows lookup, multiscale"
    ):
        store.idxBl_to_var_input(idx_Bl)


def test_a_rule_that_has_grown_is_refused(guest: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunningSum, "arrays", ("start", "end"))
    store = TokenStore(guest.store)
    with pytest.raises(StoreError, match=r"'running-sum', which needs the array 'end', and the store has none"):
        store.idxBl_to_var_input(store.read([0]).idx_Bl)


DAMAGE = {
    "array deleted": lambda rule: shutil.rmtree(rule / "start"),
    "rule deleted": lambda rule: shutil.rmtree(rule),
    "chunk cut": lambda rule: (rule / "start/c/0").write_bytes((rule / "start/c/0").read_bytes()[:-30]),
    "another array": lambda rule: zarr.open_group(str(rule)).create_array("more", data=np.zeros(3)),
    "another group": lambda rule: zarr.open_group(str(rule)).create_group("more"),
    "an array beside": lambda rule: zarr.open_group(str(rule.parent)).create_array("start", data=np.zeros(3)),
    "another rule": lambda rule: zarr.open_group(str(rule.parent)).create_group("multiscale"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_rule_arrays_are_found(copied_guest: Job, damage: str) -> None:
    DAMAGE[damage](copied_guest.store / RULE)
    store = TokenStore(copied_guest.store)
    with pytest.raises(CorruptStore, match=r"tokens\.zarr/rule/running-sum: the rule's arrays"):
        store.idxBl_to_var_input(store.read([0]).idx_Bl)
    result = check_commits(copied_guest.config())
    check_contents(copied_guest.config(), result, show_progress=False)
    assert any(RULE in problem for problem in result.problems)


def test_an_interrupted_preparation_is_completed(guest: Job, copied_guest: Job) -> None:
    (copied_guest.store / "tokens.zarr/zarr.json").unlink()
    shutil.rmtree(copied_guest.store / "tokens.zarr/rule")
    (copied_guest.store / "manifest.json").unlink()
    assert copied_guest.run().complete
    for path in sorted((guest.store / "tokens.zarr/rule").rglob("*")):
        if path.is_file():
            assert (copied_guest.store / path.relative_to(guest.store)).read_bytes() == path.read_bytes()
    assert copied_guest.digest == guest.digest


def test_another_guest_is_another_tokenizer(copied_guest: Job, tmp_path: Path) -> None:
    other = save_projection(tmp_path / "other", seed=1)
    (copied_guest.store / "manifest.json").unlink()
    with pytest.raises(IdentityMismatch, match=r"tokenizer\.weights: "):
        copied_guest.run(f"tokenizer.path={other}")
