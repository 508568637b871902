"""`vqtok import`: what it makes, what it refuses, and the way from a published checkpoint to batches of embeddings."""

import json
from collections.abc import Iterator
from pathlib import Path

import guest_kind
import pytest
import torch
from checkpoints import SIDES, save, save_llamagen, save_taming, save_var, taming_state
from click.testing import CliRunner
from fixtures_store import make_job
from guest_kind import save_projection
from support import sampled

from pipeline.cli import main
from pipeline.errors import ConfigError, TokenizerError
from pipeline.jobs.importing import job
from pipeline.jobs.reporting import job as report
from pipeline.jobs.showing import job as show
from pipeline.jobs.showing.text import as_text
from pipeline.loader import TokenLoader
from pipeline.models.folder.weights import files_digest
from pipeline.models.tokenizers.registry import KINDS, load_tokenizer, tokenizer_identity
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store"]

WAYS = {
    "var": (save_var, {"patch-nums": SIDES}, ("multiscale", (1, 4), "multiscale", 4)),
    "llamagen": (save_llamagen, {}, ("raster", (4,), "lookup", 4)),
}
"""How to save a checkpoint, options, and the layout, block lengths, rule and sequence length that come of it."""


@pytest.mark.parametrize("kind", sampled(*WAYS))
def test_from_a_checkpoint_to_embeddings(tmp_path: Path, collection: Path, kind: str) -> None:
    save_checkpoint, options, (layout, lengths, rule, length) = WAYS[kind]
    folder = tmp_path / "tokenizer"
    result = job.run(kind, str(save_checkpoint(tmp_path / "published.pt")), folder, options)
    assert (result.kind, result.layout, result.var_input) == (kind, layout, rule)
    assert str(folder) in str(result)

    changes = {"image.size": [32, 32], "source.shards": [f"{collection}/train-000[01].tar"]}
    made = make_job(tmp_path / "job", collection, folder, changes)
    assert made.run().complete
    store = TokenStore(made.store)
    assert (len(store), store.geometry.layout, store.block_lengths, store.rule.name) == (25, layout, lengths, rule)
    birth = json.loads((made.store / "store.json").read_text())
    assert birth["identity"]["layout"] == layout
    assert birth["identity"]["tokenizer"] == tokenizer_identity(folder)

    tokenizer = load_tokenizer(folder)
    batch = next(iter(TokenLoader(store, batch_size=16, shuffle=True)))
    x_BLC = store.idxBl_to_var_input(batch.idx_Bl)  # without the model
    assert (tuple(x_BLC.shape), x_BLC.dtype) == ((16, length, store.embedding_dim), torch.float32)
    assert torch.equal(x_BLC, tokenizer.idxBl_to_var_input(batch.idx_Bl))

    page = report.run(made.config())
    assert page.psnr is not None
    text = as_text(show.run(str(made.store), "000001", show_progress=False))
    assert f"layout {layout} of a grid of 2 x 2" in text
    assert ("block 1, a scale of 2 x 2" if kind == "var" else "block 0, grid rows 0 to 1, columns 0 to 1") in text


def test_a_folder_is_as_every_other(tmp_path: Path) -> None:
    job.run("taming", str(save_taming(tmp_path / "last.ckpt")), tmp_path / "new/tokenizer")
    folder = tmp_path / "new/tokenizer"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").read_bytes()
    assert config["kind"] == "taming"
    assert config["identity"]["weights"] == files_digest({"model.safetensors": weights})
    assert [path.name for path in folder.parent.iterdir()] == ["tokenizer"]  # nothing is left beside it


def test_a_folder_comes_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = str(save_taming(tmp_path / "last.ckpt")), tmp_path / "places/tokenizer"
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.models.tokenizers.vqgan.trial.compare", _refuse)
        with pytest.raises(TokenizerError, match="untrusted"):
            job.run("taming", source, out)
    assert list(out.parent.iterdir()) == []
    out.mkdir()
    job.run("taming", source, out)  # an empty folder is as good as none
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ConfigError, match=f"{out}: is there already"):
        job.run("taming", source, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: is there already"):
        job.run("taming", source, tmp_path / "file")


def test_the_kind_that_a_checkpoint_is_of_is_named(tmp_path: Path) -> None:
    sources = {"var": save_var(tmp_path / "vae.pth"), "llamagen": save_llamagen(tmp_path / "vq.pt")}
    sources["taming"] = save_taming(tmp_path / "last.ckpt")
    for kind, source in sources.items():
        for other in sources.keys() - {kind}:
            with pytest.raises(TokenizerError, match=f"It is a tokenizer of kind {kind}: vqtok import {kind} {source}"):
                job.run(other, str(source), tmp_path / "out")
    with pytest.raises(TokenizerError) as caught:
        job.run("var", str(save(tmp_path / "a.pt", {"a": torch.zeros(1)})), tmp_path / "out")
    assert "It is" not in str(caught.value)


def _refuse(*_: object) -> None:
    raise TokenizerError("untrusted")


def test_the_command(tmp_path: Path) -> None:
    source = save_var(tmp_path / "vae.pth")

    def run(*words: object, status: int = 0) -> str:
        done = CliRunner().invoke(main, ["import", *map(str, words)])
        assert done.exit_code == status, done.output
        return " ".join(done.output.split())

    page = run("--help")
    assert all(kind in page for kind in ("var", "llamagen", "taming"))
    assert "--patch-nums, --cosine" in page.replace("- ", "-")  # lines break behind hyphens
    assert "--patch-nums N,N,..." in run("var", "--help")
    assert "a tokenizer of kind var" in run("var", source, tmp_path / "out", "--patch-nums", "1,2", "--cosine")
    identity = json.loads((tmp_path / "out/config.json").read_text())["identity"]
    assert (identity["patch_nums"], identity["cosine"]) == ([1, 2], True)
    assert "each is finer than the last" in run("var", source, tmp_path / "b", "--patch-nums", "2,1", status=2)
    assert "write whole numbers" in run("var", source, tmp_path / "b", "--patch-nums", "1;2", status=2)
    assert "No such option" in run("taming", source, tmp_path / "b", "--patch-nums", "1", status=2)
    assert "no kind of tokenizer 'cosmos'; known: var, llamagen," in run("cosmos", source, tmp_path / "b", status=2)
    assert f"no kind of tokenizer '{source}'" in run(source, tmp_path / "b", status=2)
    assert "no such file" in run("var", tmp_path / "nowhere.pth", tmp_path / "b", status=2)
    assert "is there already" in run("var", source, tmp_path / "out", status=2)
    other = save(tmp_path / "last.ckpt", taming_state())
    assert "not the tensors of such a tokenizer: missing: decoder" in run("var", other, tmp_path / "b", status=1)
    assert not (tmp_path / "b").exists()


def test_a_guest_can_have_an_importer(tmp_path: Path, guest_that_imports: None) -> None:
    job.run("projection", str(save_projection(tmp_path / "theirs")), tmp_path / "ours", {"seed": 3})
    assert tokenizer_identity(tmp_path / "ours")["kind"] == "projection"
    with pytest.raises(ConfigError, match="importing projection has no option 'cosine'"):
        job.run("projection", "x", tmp_path / "other", {"cosine": True})
    with pytest.raises(ConfigError, match=r"no kind 'vqtok' that can be imported; known: var, .*projection"):
        job.run("vqtok", "x", tmp_path / "other")


@pytest.fixture
def guest_that_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from dataclasses import replace

    from pipeline.models.folder.contents import read_config, read_files
    from pipeline.models.tokenizers.importer import Imported, Importer, ImportOption, Options

    def read(source: str, options: Options) -> Imported:
        assert options == {"seed": 3}
        config = read_config(Path(source))
        return Imported(config, read_files(Path(source), config))

    importer = Importer("A projection.", "FOLDER", read, (ImportOption("seed", "A number.", "N", int),))
    monkeypatch.setattr(guest_kind, "KIND", replace(guest_kind.KIND, importer=importer))
    monkeypatch.setitem(KINDS, guest_kind.NAME, guest_kind.__name__)
    yield
