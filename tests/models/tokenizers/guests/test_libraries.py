"""Tokenizers that diffusers and transformers run: folders as these save them, made of small random models."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from pipeline.errors import ConfigError, TokenizerError
from pipeline.jobs.importing import job
from pipeline.models.layouts.cuts import CUTS
from pipeline.models.tokenizers.guests.networks import network_of
from pipeline.models.tokenizers.guests.sources import published_folder
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.registry import load_tokenizer, tokenizer_identity
from pipeline.records import Normalization

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")


def images(B: int = 2, H: int = 32, W: int = 48) -> Tensor:
    return torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(5)) * 2 - 1


def with_spread_codes(model: Any) -> Any:
    """Codes as far apart as vectors are, so that many are used."""
    torch.nn.init.normal_(model.quantize.embedding.weight, generator=torch.Generator().manual_seed(1))
    return model.eval()


@cache
def vq_model(**changes: Any) -> Any:
    torch.manual_seed(0)
    made = diffusers.VQModel(
        **{
            "block_out_channels": (32, 64),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "latent_channels": 4,
            "num_vq_embeddings": 40,
            **changes,
        }
    )
    return with_spread_codes(made)


@cache
def chameleon() -> Any:
    torch.manual_seed(0)
    settings = transformers.ChameleonVQVAEConfig(
        base_channels=32, channel_multiplier=[1, 2], num_res_blocks=1, embed_dim=6, latent_channels=8,
        num_embeddings=50, resolution=64, attn_resolutions=[32],
    )  # fmt: skip
    model = transformers.ChameleonVQVAE(settings).eval()
    with torch.no_grad():  # what it starts with leaves all vectors about equal
        z_NC = model.quant_conv(model.encoder(images())).permute(0, 2, 3, 1).flatten(0, 2)
        model.quantize.embedding.weight.copy_(z_NC[:: len(z_NC) // 50][:50])
    return model


@cache
def emu3() -> Any:
    torch.manual_seed(0)
    settings = transformers.Emu3VQVAEConfig(
        base_channels=32, channel_multiplier=[1, 2], num_res_blocks=1, attn_resolutions=[1], codebook_size=60,
        hidden_size=64,
    )  # fmt: skip
    return with_spread_codes(transformers.Emu3VQVAE(settings))


@cache
def janus() -> Any:
    torch.manual_seed(0)
    settings = transformers.JanusVQVAEConfig(
        base_channels=32, channel_multiplier=[1, 2], num_res_blocks=1, embed_dim=6, latent_channels=8,
        num_embeddings=50, num_patches=8,
    )  # fmt: skip
    return with_spread_codes(transformers.JanusVQVAE(settings))


def tokens_of(found: Any) -> Any:
    """What `encode` gives, by name or, in version 4, in a tuple or by itself."""
    return found[2] if isinstance(found, tuple) else getattr(found, "image_tokens", found)


def imported(folder: Path, kind: str, model: Any, **options: Any) -> NetworkTokenizer:
    model.save_pretrained(folder / "published")
    return taken(folder, kind, **options)


def taken(folder: Path, kind: str, **options: Any) -> NetworkTokenizer:
    job.run(kind, str(folder / "published"), folder / "tokenizer", options)
    tokenizer = load_tokenizer(folder / "tokenizer")
    assert isinstance(tokenizer, NetworkTokenizer)
    return tokenizer


@pytest.mark.parametrize("changes", [{}, {"lookup_from_codebook": True, "norm_type": "spatial", "vq_embed_dim": 4}])
def test_diffusers(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = vq_model(**changes)
    tokenizer = imported(tmp_path, "diffusers", model)
    assert (tokenizer.downsampling, tokenizer.layout.name) == (2, "raster")
    with torch.no_grad():
        codes_BChw, _, found = model.quantize(model.encode(images()).latents)
        (idx_BL,) = tokenizer.encode(images())
        assert torch.equal(idx_BL.flatten(), found[2])
        assert len(idx_BL.unique()) > 5
        by_index = {"h": found[2], "shape": (2, 16, 24, 4)}  # what the library takes depends on a key of its own
        given = by_index if model.config.lookup_from_codebook else {"h": codes_BChw}
        expected = model.decode(**given, force_not_quantize=True).sample
        torch.testing.assert_close(tokenizer.decode([idx_BL], (16, 24)), expected, atol=1e-4, rtol=1e-3)
    assert tokenizer.codebook.table is not None
    np.testing.assert_array_equal(tokenizer.codebook.table, model.quantize.embedding.weight.detach())


@torch.no_grad()
def test_blank_images_have_the_vectors_that_the_model_itself_gives_them(tmp_path: Path) -> None:
    """Encoders run in channels_last memory, in which torch's group norm of a blank image is far off."""
    model = vq_model(block_out_channels=(128, 128))
    tokenizer = imported(tmp_path, "diffusers", model).to("cpu")
    blank = torch.full((1, 3, 128, 128), 0.3)
    pixels = blank.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(tokenizer.model.encode(pixels), model.encode(blank).latents, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("part", ["vqvae", "movq"])
def test_a_whole_pipeline_says_which_of_its_models_it_is(tmp_path: Path, part: str) -> None:
    vq_model().save_pretrained(tmp_path / "published" / part)
    index = {"_class_name": "UnCLIPPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": [None, None]}
    written = tmp_path / "published/model_index.json"
    written.write_text(json.dumps(index))
    with pytest.raises(TokenizerError, match=r"of the pipeline's models there is none of class VQModel"):
        taken(tmp_path, "diffusers")
    written.write_text(json.dumps({**index, part: ["diffusers", "VQModel"]}))
    assert taken(tmp_path, "diffusers").codebook.vocab_size == vq_model().config.num_vq_embeddings


def test_pixels_are_as_asked_for(tmp_path: Path) -> None:
    tokenizer = imported(tmp_path, "diffusers", vq_model(), pixels=(0.0, 1.0))
    assert tokenizer.normalization == Normalization(mean=(0, 0, 0), std=(1, 1, 1))


def test_chameleon(tmp_path: Path) -> None:
    model = chameleon()
    tokenizer = imported(tmp_path, "transformers", model)
    with torch.no_grad():
        (idx_BL,) = tokenizer.encode(images())
        assert torch.equal(idx_BL.flatten(), tokens_of(model.encode(images())))
    assert len(idx_BL.unique()) > 5
    geometry = tokenizer.geometry((32, 48))
    assert (geometry.grid, geometry.decodable) == ((16, 24), False)
    with pytest.raises(TokenizerError, match="ChameleonVQVAE has no decoder"):
        tokenizer.decode([idx_BL], (16, 24))
    assert json.loads((tmp_path / "tokenizer/config.json").read_text())["image_size"] == [64, 64]


def test_emu3(tmp_path: Path) -> None:
    model = emu3()
    tokenizer = imported(tmp_path, "transformers", model)
    with torch.no_grad():
        (idx_BL,) = tokenizer.encode(images())
        grids = tokens_of(model.encode(images(), image_sizes=torch.tensor([[32, 48]] * 2)))
        assert torch.equal(idx_BL.reshape(2, 16, 24), torch.stack(grids))
        torch.testing.assert_close(
            tokenizer.decode([idx_BL], (16, 24)), model.decode(torch.stack(grids)), atol=1e-4, rtol=1e-3
        )
    assert len(idx_BL.unique()) > 5
    (low_BL,) = tokenizer.to("cpu", "bf16").encode(images())
    assert (low_BL == idx_BL).float().mean() > 0.8


def test_janus_weights_are_searched_as_their_authors_do(tmp_path: Path) -> None:
    model = janus()
    tokenizer = imported(tmp_path, "transformers", model)
    assert tokenizer_identity(tmp_path / "tokenizer")["kind"] == "llamagen"
    img = images(2, 16, 16)
    with torch.no_grad():
        z_NC = F.normalize(model.quant_conv(model.encoder(img)).permute(0, 2, 3, 1).flatten(0, 2), dim=1)
        expected_N = (z_NC @ F.normalize(model.quantize.embedding.weight, dim=1).T).argmax(1)
        (idx_BL,) = tokenizer.encode(img)
        assert torch.equal(idx_BL.flatten(), expected_N)
        assert not torch.equal(expected_N, tokens_of(model.encode(img)))  # the library's own
        torch.testing.assert_close(tokenizer.decode([idx_BL]), model.decode(idx_BL), atol=1e-4, rtol=1e-4)


def inside_a_whole_model(folder: Path, family: str, shards: bool) -> None:
    """What `save_pretrained` leaves of a model of which the tokenizer is a part."""
    folder = folder / "published"
    alone, settings = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    tensors = {f"model.vqmodel.{name}": value for name, value in alone.items()}
    others = {"model.language_model.norm.weight": torch.zeros(3)}
    if shards:
        (folder / "model.safetensors").unlink()
        names = {"model-00001-of-00002.safetensors": tensors, "model-00002-of-00002.safetensors": others}
        for name, held in names.items():
            save_file(held, folder / name)
        index = {"weight_map": {key: name for name, held in names.items() for key in held}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file({**tensors, **others}, folder / "model.safetensors")
    whole = {
        "architectures": [f"{family}ForConditionalGeneration"],
        "model_type": family.lower(),
        "vq_config": settings,
    }
    (folder / "config.json").write_text(json.dumps(whole))


@pytest.mark.parametrize(("family", "model", "shards"), [("Chameleon", chameleon, True), ("Janus", janus, False)])
def test_a_part_of_a_whole_model(tmp_path: Path, family: str, model: Callable[[], Any], shards: bool) -> None:
    imported(tmp_path / "alone", "transformers", model())
    model().save_pretrained(tmp_path / "published")
    inside_a_whole_model(tmp_path, family, shards)
    taken(tmp_path, "transformers")
    assert tokenizer_identity(tmp_path / "tokenizer") == tokenizer_identity(tmp_path / "alone/tokenizer")


def test_pixels_are_as_the_file_beside_the_weights_says(tmp_path: Path) -> None:
    chameleon().save_pretrained(tmp_path / "published")
    settings = {"rescale_factor": 0.0078, "image_mean": [1.0] * 3, "image_std": [1.0, 2.0, 1.0]}
    (tmp_path / "published/preprocessor_config.json").write_text(json.dumps(settings))
    tokenizer = taken(tmp_path, "transformers")
    x = 200 / 255
    for channel, std in enumerate((1.0, 2.0, 1.0)):
        ours = (x - tokenizer.normalization.mean[channel]) / tokenizer.normalization.std[channel]
        assert ours == pytest.approx((200 * 0.0078 - 1) / std)
    (tmp_path / "published/preprocessor_config.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"preprocessor_config\.json: does not say rescale_factor"):
        job.run("transformers", str(tmp_path / "published"), tmp_path / "other")


def rewritten(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another class": (lambda folder: rewritten(folder / "config.json", _class_name="AutoencoderKL"), "not 'VQModel'"),
    "no settings": (lambda folder: (folder / "config.json").unlink(), r"config\.json: missing"),
    "no weights": (
        lambda folder: (folder / "diffusion_pytorch_model.safetensors").unlink(),
        "no model.safetensors and",
    ),
    "another size": (
        lambda folder: rewritten(folder / "config.json", num_vq_embeddings=41),
        r"of another shape: quantize\.embedding\.weight 40x4 where 41x4 fits",
    ),
    "cut": (
        lambda folder: (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 30),
        "not a whole safetensors file",
    ),
    "a billion layers": (
        lambda folder: rewritten(folder / "config.json", layers_per_block=10**9),
        "asks for a network larger than its weights",
    ),
    "terabytes of codes": (
        lambda folder: rewritten(folder / "config.json", num_vq_embeddings=1 << 40),
        "asks for a network larger than its weights",
    ),
    "weights of elsewhere": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "../x.safetensors"}}'
        ),
        r"index\.json: '\.\./x\.safetensors' is no name of a safetensors file beside it",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_what_is_no_such_model_is_refused(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    vq_model().save_pretrained(tmp_path / "published")
    spoil(tmp_path / "published")
    with pytest.raises(TokenizerError, match=message):
        taken(tmp_path, "diffusers")
    assert not (tmp_path / "tokenizer").exists()


def test_a_hub_name_without_a_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"some/model: no such folder here, and .* Hub does not give") as caught:
        published_folder("some/model")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="nowhere: no such folder; name one"):
        published_folder("nowhere")
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ConfigError, match=rf"{file}: a file; name its folder, {tmp_path}, as save_pretrained"):
        published_folder(str(file))


def test_a_model_that_uses_other_codes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Janus' own code does, which normalises codes in one place and not in the other."""
    imported(tmp_path, "transformers", chameleon())
    forward = type(chameleon().quantize).forward
    scaled = lambda self, z: (F.normalize(forward(self, z)[0], dim=1), *forward(self, z)[1:])  # noqa: E731
    monkeypatch.setattr(type(chameleon().quantize), "forward", scaled)
    with pytest.raises(TokenizerError, match="on a test image the model itself used other codes"):
        load_tokenizer(tmp_path / "tokenizer")


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(tmp_path, "diffusers", vq_model())
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    assert tokenizer_identity(tmp_path / "tokenizer")["kind"] == "diffusers"
    with pytest.raises(ConfigError, match=r"pip install 'vqtok\[guests\]'"):
        load_tokenizer(tmp_path / "tokenizer")


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize(
    ("name", "library", "model"),
    [
        ("VQModel", diffusers, vq_model),
        ("ChameleonVQVAE", transformers, chameleon),
        ("Emu3VQVAE", transformers, emu3),
    ],
)
def test_on_a_gpu_nothing_waits_and_no_devices_meet(
    name: str, library: Any, model: Callable[[], Any], modules_that_move: None
) -> None:
    config = model().config
    settings = dict(config) if name == "VQModel" else config.to_dict()
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = network_of(name, library, settings).eval()
        tokenizer = NetworkTokenizer(network, CUTS["raster"], Normalization(), {}).to("cuda")
        idx_Bl = tokenizer.encode(images())
        found = [*idx_Bl, tokenizer.idxBl_to_var_input(idx_Bl)]
        if network.decodes:
            found.append(tokenizer.decode(idx_Bl, (16, 24)))
    assert {tensor.device.type for tensor in found} == {"cuda"}
