import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models import SimpleVQVAE
from pipeline.models.folder.weights import weights_digest
from pipeline.models.tokenizers.registry import load_tokenizer, tokenizer_identity
from pipeline.models.tokenizers.vqtok import Arguments, save_tokenizer
from pipeline.records import Normalization

EVERYTHING: dict[str, Any] = {
    "residual_blocks": 1,
    "final_relu": False,
    "ema_decay": 0.9,
    "kmeans_init": True,
    "revive_after": 2,
    "cosine": True,
}
NORMALIZATION = Normalization(mean=(0.4, 0.5, 0.6), std=(0.25, 0.5, 0.5))


def trained(**options: Any) -> SimpleVQVAE:
    torch.manual_seed(0)
    model = SimpleVQVAE(16, 4, 6, **options)
    for _ in range(2):
        model(images())
    return model


def images() -> torch.Tensor:
    return torch.randn(4, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tokenizer(tmp_path / "tokenizer", trained(), NORMALIZATION, image_size=(16, 24))
    return tmp_path / "tokenizer"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_a_loaded_tokenizer_gives_identical_tokens(tmp_path: Path, options: dict[str, Any]) -> None:
    model = trained(**options)
    save_tokenizer(tmp_path, model, NORMALIZATION)
    loaded = load_tokenizer(tmp_path, "quadrants")
    expected = model.img_to_idxBl(images(), "quadrants")
    assert all(map(torch.equal, loaded.encode(images()), expected))
    assert loaded.normalization == NORMALIZATION
    table_KC = loaded.codebook.table
    assert table_KC is not None
    assert torch.equal(torch.from_numpy(table_KC), model.quantize.get_codebook().detach())


def test_what_is_saved_is_the_parameters_and_nothing_that_counts_training(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, trained(**EVERYTHING), NORMALIZATION)
    parameters = dict(SimpleVQVAE(16, 4, 6, residual_blocks=1).named_parameters())
    assert load_file(tmp_path / "model.safetensors").keys() == parameters.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_config_json_tells_the_whole_story(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, trained(), NORMALIZATION, {"steps": 2, "psnr": 20.5}, image_size=(16, 24))
    config = json.loads((tmp_path / "config.json").read_text())
    weights = config["identity"].pop("weights")
    assert weights == weights_digest((tmp_path / "model.safetensors").read_bytes())
    assert config == {
        "format": "vqtok-tokenizer",
        "version": 1,
        "identity": {
            "architecture": "SimpleVQVAE",
            "arguments": {
                "vocab_size": 16,
                "embedding_dim": 4,
                "hidden_dim": 6,
                "residual_blocks": 0,
                "final_relu": True,
                "cosine": False,
            },
            "normalization": {"mean": [0.4, 0.5, 0.6], "std": [0.25, 0.5, 0.5]},
            "downsampling": 4,
        },
        "image_size": [16, 24],
        "train": {"steps": 2, "psnr": 20.5},
    }


@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_the_identity_of_a_folder_is_that_of_its_tokenizer(tmp_path: Path, options: dict[str, Any]) -> None:
    save_tokenizer(tmp_path, trained(**options), NORMALIZATION)
    identity = tokenizer_identity(tmp_path)
    assert load_tokenizer(tmp_path, "raster").identity() == identity
    assert load_tokenizer(tmp_path, "diagonal", precision="bf16").identity() == identity
    assert json.loads(json.dumps(identity)) == identity


def test_only_what_decides_tokens_changes_the_identity(folder: Path, tmp_path: Path) -> None:
    identity = tokenizer_identity(folder)
    save_tokenizer(tmp_path, trained(), NORMALIZATION, {"note": "another story"})
    assert tokenizer_identity(tmp_path) == identity
    weights = load_file(folder / "model.safetensors")
    save_file(dict(reversed(weights.items())), folder / "model.safetensors", metadata={"written": "again"})
    assert tokenizer_identity(folder) == identity

    save_tokenizer(folder, trained(), Normalization())
    assert tokenizer_identity(folder) != identity
    other = trained()
    with torch.no_grad():
        other.decoder[2].bias[0] += 1e-6
    save_tokenizer(folder, other, NORMALIZATION)
    assert tokenizer_identity(folder)["weights"] != identity["weights"]


def test_saving_again_replaces_the_tokenizer(folder: Path) -> None:
    save_tokenizer(folder, trained(final_relu=False), NORMALIZATION)
    assert tokenizer_identity(folder)["arguments"]["final_relu"] is False
    load_tokenizer(folder, "raster")


def test_saving_draws_no_random_numbers(tmp_path: Path) -> None:
    model, state = trained(), torch.get_rng_state()
    save_tokenizer(tmp_path, model, NORMALIZATION)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_diverged_model_is_not_saved(tmp_path: Path) -> None:
    model = trained()
    with torch.no_grad():
        model.encoder[0].bias[3] = torch.nan
    with pytest.raises(TokenizerError, match=r"encoder.0.bias is not finite: training diverged"):
        save_tokenizer(tmp_path / "tokenizer", model, NORMALIZATION)
    assert not (tmp_path / "tokenizer").exists()


def test_an_unknown_layout_is_the_fault_of_the_configuration(folder: Path) -> None:
    with pytest.raises(ConfigError, match="spiral"):
        load_tokenizer(folder, "spiral")


def truncate(folder: Path, size: int) -> None:
    os.truncate(folder / "model.safetensors", size)


def overwrite(folder: Path, start: int, data: bytes) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(start)
        file.write(data)


def rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Other tensors with a digest that fits, as somebody who edits both files would write them."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    digest = weights_digest((folder / "model.safetensors").read_bytes())
    edit(folder, lambda config: config["identity"].update(weights=digest))


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.pt")


BAD_CONFIGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config.json: missing; `vqtok train`"),
    "broken JSON": (lambda f: (f / "config.json").write_text("{"), r"config.json: not valid JSON"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff{}"), r"config.json: not valid JSON"),
    "not an object": (lambda f: (f / "config.json").write_text("[]"), r"config.json: .*dictionary"),
    "of another program": (
        lambda f: (f / "config.json").write_text('{"dim": 3}'),
        r"config.json: the settings of another library",
    ),
    "unknown key": (lambda f: edit(f, lambda c: c.update(colour=1)), r"config.json: colour: Extra"),
    "newer version": (lambda f: edit(f, lambda c: c.update(version=2)), r"version 2, this vqtok reads 1; upgrade"),
    "unknown architecture": (
        lambda f: edit(f, lambda c: c["identity"].update(architecture="VAR")),
        r"config.json: unknown architecture 'VAR'; known: SimpleVQVAE",
    ),
    "unknown argument": (
        lambda f: edit(f, lambda c: c["identity"]["arguments"].update(depth=3)),
        r"config.json: identity.arguments.depth: Extra",
    ),
    "argument missing": (
        lambda f: edit(f, lambda c: c["identity"]["arguments"].pop("cosine")),
        r"config.json: identity.arguments.cosine: Field required",
    ),
    "argument of another type": (
        lambda f: edit(f, lambda c: c["identity"]["arguments"].update(vocab_size="16")),
        r"config.json: identity.arguments.vocab_size: .*integer \(got '16'\)",
    ),
}
BAD_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model.safetensors: missing; `vqtok train`"),
    "a folder": (
        lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
        r"model.safetensors: cannot be read",
    ),
    "empty": (lambda f: truncate(f, 0), r"model.safetensors: it ends inside its header; copy"),
    "cut in the header": (lambda f: truncate(f, 100), r"model.safetensors: it ends inside its header"),
    "cut in the data": (lambda f: truncate(f, 2000), r"model.safetensors: it has 2000 bytes where its header tells of"),
    "header overwritten": (lambda f: overwrite(f, 8, b"pickled!"), r"model.safetensors: its header is not that of"),
    "one bit flipped": (lambda f: overwrite(f, 3000, b"\x01"), r"model.safetensors: not the weights that config.json"),
    "only a pickle": (only_a_pickle, r"model.pt: a pickle can run code.*vqtok import"),
}
BAD_PAIRS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other shape": (
        lambda f: edit(f, lambda c: c["identity"]["arguments"].update(vocab_size=32)),
        r"model.safetensors: tensor quantize.embedding.weight is F32 \[16, 4\], but .* ask for F32 \[32, 4\]",
    ),
    "tensor missing": (
        lambda f: rewrite_weights(f, lambda w: w.pop("decoder.0.bias")),
        r"model.safetensors: tensor decoder.0.bias is missing, but .* ask for F32 \[6\]",
    ),
    "tensor too many": (
        lambda f: rewrite_weights(f, lambda w: w.update(head=torch.zeros(3))),
        r"model.safetensors: tensor head is F32 \[3\], but .* ask for none",
    ),
    "other dtype": (
        lambda f: rewrite_weights(f, lambda w: w.update({"decoder.2.bias": torch.zeros(3).half()})),
        r"model.safetensors: tensor decoder.2.bias is F16 \[3\], but .* ask for F32 \[3\]",
    ),
    "other downsampling": (
        lambda f: edit(f, lambda c: c["identity"].update(downsampling=8)),
        r"config.json: identity.downsampling is 8, but SimpleVQVAE has 4",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), (BAD_CONFIGS | BAD_WEIGHTS).values(), ids=[*BAD_CONFIGS, *BAD_WEIGHTS])
def test_a_bad_folder_has_neither_identity_nor_tokenizer(folder: Path, spoil: Any, message: str) -> None:
    spoil(folder)
    for use in (tokenizer_identity, lambda path: load_tokenizer(path, "raster")):
        with pytest.raises(TokenizerError, match=message) as caught:
            use(folder)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize(("spoil", "message"), BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_files_that_do_not_belong_together_give_no_tokenizer(folder: Path, spoil: Any, message: str) -> None:
    spoil(folder)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder, "raster")


def test_a_path_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"nowhere: no such tokenizer folder; `vqtok train`"):
        tokenizer_identity(tmp_path / "nowhere")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(TokenizerError, match=r"model.pt: a pickle can run code"):
        load_tokenizer(tmp_path / "model.pt", "raster")


def test_no_pickle_is_ever_opened(folder: Path, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "touched",)

    for name in ("config.json", "model.safetensors"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(Touch()))
        with pytest.raises(TokenizerError, match=name):
            load_tokenizer(folder, "raster")
        (folder / name).write_bytes(before)
    assert not (tmp_path / "touched").exists()


def test_a_folder_has_all_arguments_of_the_network() -> None:
    assert SimpleVQVAE().arguments.keys() == Arguments.model_fields.keys()


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has imported after it ran `code`."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_identities_and_layouts_do_without_torch(folder: Path) -> None:
    light = (
        "import pipeline.models\n"
        "from pipeline.models.layouts.cuts import cut_named\n"
        "from pipeline.models.tokenizers.registry import tokenizer_identity\n"
        f"cut_named('raster').block_lengths((4, 4)), tokenizer_identity({str(folder)!r})"
    )
    modules = modules_after(light)
    assert "pipeline.models.tokenizers.registry" in modules
    assert "torch" not in modules


HUGE: dict[str, Callable[[dict[str, Any]], object]] = {
    name: lambda config, name=name, value=value: config["identity"]["arguments"].update({name: value})
    for name, value in (
        ("residual_blocks", 10**9),
        ("vocab_size", 1 << 40),
        ("embedding_dim", 1 << 40),
        ("hidden_dim", 1 << 20),
    )
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("change", HUGE.values(), ids=HUGE)
def test_a_network_larger_than_its_weights_takes_no_memory(folder: Path, change: Callable[..., object]) -> None:
    edit(folder, change)
    with pytest.raises(TokenizerError, match=r"config\.json: asks for a network larger than its weights, which have"):
        load_tokenizer(folder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_only_regular_files_are_read(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(TokenizerError, match=f"{name}: cannot be read: .*only regular files are read"):
        load_tokenizer(folder)
