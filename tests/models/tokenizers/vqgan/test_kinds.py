"""Folders of published tokenizers, beside references that go from published name to published name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SIDES, llamagen_state, save, taming_state, var_state
from published import LLAMAGEN, TAMING, VAR, Family, Scales, State, nearest
from support import sampled
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError, TokenizerError
from pipeline.jobs.importing import job
from pipeline.models.networks.multiscale import phi_numbers
from pipeline.models.networks.vqgan import dialects
from pipeline.models.networks.vqgan.published import read_network
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.registry import load_tokenizer


def imported(folder: Path, kind: str, tree: Any, **options: Any) -> NetworkTokenizer:
    source = save(folder / "checkpoint.pt", tree)
    job.run(kind, str(source), folder / "tokenizer", options)
    tokenizer = load_tokenizer(folder / "tokenizer")
    assert isinstance(tokenizer, NetworkTokenizer)
    return tokenizer


def images(B: int, H: int, W: int) -> Tensor:
    return torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(7)) * 2 - 1


@pytest.mark.parametrize(
    ("kind", "family", "state"), [("taming", TAMING, taming_state()), ("llamagen", LLAMAGEN, llamagen_state())]
)
def test_one_grid(tmp_path: Path, kind: str, family: Family, state: State) -> None:
    tokenizer, img = imported(tmp_path, kind, {"state_dict": state}), images(2, 32, 48)
    assert tokenizer.geometry((32, 48)).block_lengths == (6,)
    codes_KC, z_BChw = state["quantize.embedding.weight"], family.encode(state, img)
    z_NC = z_BChw.permute(0, 2, 3, 1).flatten(0, 2)
    if kind == "llamagen":  # both sides normalised, for the search and for what is decoded
        codes_KC, z_NC = F.normalize(codes_KC, dim=1), F.normalize(z_NC, dim=1)
    (idx_BL,) = tokenizer.encode(img)
    assert torch.equal(idx_BL.flatten(), nearest(z_NC, codes_KC))
    assert tokenizer.codebook.table is not None
    np.testing.assert_allclose(tokenizer.codebook.table, codes_KC, rtol=1e-6, atol=1e-7)
    expected = family.decode(state, codes_KC[idx_BL].reshape(2, 2, 3, -1).permute(0, 3, 1, 2))
    torch.testing.assert_close(tokenizer.decode([idx_BL], (2, 3)), expected, atol=1e-4, rtol=1e-4)
    x_BLC = tokenizer.idxBl_to_var_input([idx_BL])
    assert torch.equal(x_BLC, torch.from_numpy(tokenizer.codebook.table)[idx_BL])


@pytest.mark.parametrize("cosine", sampled(True, False))
@pytest.mark.parametrize(
    "phis", [tuple(f"qresi_ls.{n}" for n in range(4)), ("qresi",), ("0", "1", "2")], ids=["some", "one", "each"]
)
def test_several_scales(tmp_path: Path, phis: tuple[str, ...], cosine: bool) -> None:
    state, sides = var_state(phis=phis), (1, 2, 3)
    tokenizer = imported(tmp_path, "var", state, **{"patch-nums": sides, "cosine": cosine})
    assert tokenizer.geometry((48, 48)).block_lengths == (1, 4, 9)
    numbers = phi_numbers(len(phis), 3)
    phi = [
        (state[f"quantize.quant_resi.{phis[n]}.weight"], state[f"quantize.quant_resi.{phis[n]}.bias"]) for n in numbers
    ]
    paper = Scales(state["quantize.embedding.weight"], phi, sides, cosine)
    img = images(2, 48, 48)
    idx_Bl = tokenizer.encode(img)
    x_BLC = tokenizer.idxBl_to_var_input(idx_Bl)
    for row, z_CPP in enumerate(VAR.encode(state, img)):
        expected = paper.encode(z_CPP)
        assert [block[row].tolist() for block in idx_Bl] == [grid.flatten().tolist() for grid in expected]
        torch.testing.assert_close(x_BLC[row], paper.var_input(expected))
        for count, total in enumerate(paper.sums(expected), 1):
            decoded = tokenizer.decode([block[row : row + 1] for block in idx_Bl[:count]])
            torch.testing.assert_close(decoded, VAR.decode(state, total), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["var", "llamagen"])
def test_an_image_has_the_same_tokens_in_any_batch(tmp_path: Path, kind: str) -> None:
    options = {"patch-nums": (1, 2)} if kind == "var" else {}
    tokenizer = imported(tmp_path, kind, var_state() if kind == "var" else llamagen_state(), **options)
    img = images(32, 32, 32)
    together = torch.cat(tokenizer.encode(img), dim=1)
    alone = torch.cat([torch.cat(tokenizer.encode(img[row : row + 1]), dim=1) for row in range(32)])
    assert torch.equal(together, alone)


def whole_model(state: State) -> State:
    """As latent-diffusion saves it; what is beside the tokenizer has names like its own."""
    others = ("model.diffusion_model.out.2.bias", "model_ema.decay", "cond_stage_model.encoder.conv_in.weight", "betas")
    return {
        **dict.fromkeys(others, torch.zeros(3)),
        **{f"first_stage_model.{name}": value for name, value in state.items()},
        "first_stage_model.loss.discriminator.main.0.weight": torch.zeros(3),
    }


NESTED: dict[str, tuple[str, Callable[[], Any]]] = {
    "bare": ("var", var_state),
    "a trainer's": ("var", lambda: {"trainer": {"vae_local": var_state(), "var_wo_ddp": {}}, "epoch": 1}),
    "the average comes first": ("llamagen", lambda: {"model": {"x": torch.zeros(1)}, "ema": llamagen_state()}),
    "lightning's": ("taming", lambda: {"state_dict": taming_state(), "global_step": 3}),
    "the first stage of a whole model": ("taming", lambda: {"state_dict": whole_model(taming_state())}),
    "of one in several processes": (
        "taming",
        lambda: {"state_dict": {f"module.{name}": value for name, value in whole_model(taming_state()).items()}},
    ),
    "half precision": ("taming", lambda: {name: value.half() for name, value in taming_state().items()}),
    "brain floats": ("llamagen", lambda: {"model": {n: v.bfloat16() for n, v in llamagen_state().items()}}),
}


@pytest.mark.parametrize(("kind", "tree"), NESTED.values(), ids=NESTED)
def test_weights_are_found_where_they_are_published(tmp_path: Path, kind: str, tree: Callable[[], Any]) -> None:
    options = {"patch-nums": SIDES} if kind == "var" else {}
    tokenizer = imported(tmp_path, kind, tree(), **options)
    assert {value.dtype for value in tokenizer.model.state_dict().values()} == {torch.float32}
    assert tokenizer.encode(images(1, 32, 32))[-1].shape == (1, 4)


def without(name: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if key != name}


def plus(name: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, name: torch.zeros(shape)}


SPOILT: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (without("encoder.mid.block_1.conv1.bias"), r"missing: encoder\.mid\.block_1\.conv1\.bias$"),
    "missing, and needed to tell the rest": (without("encoder.conv_in.weight"), r"missing: encoder\.conv_in\.weight$"),
    "left over": (plus("encoder.more.weight", 3), r"left over: encoder\.more\.weight$"),
    "a block too many": (plus("encoder.down.0.block.1.conv1.bias", 32), r"missing: encoder\.down\.0\.block\.1\.conv1"),
    "misshapen": (plus("decoder.norm_out.bias", 64), r"of another shape: decoder\.norm_out\.bias 64 where 32 fits$"),
    "grey images": (plus("encoder.conv_in.weight", 32, 1, 3, 3), r"conv_in\.weight 32x1x3x3 where 32x3x3x3 fits"),
    "Gumbel": (
        lambda state: {**without("quantize.embedding.weight")(state), "quantize.embed.weight": torch.zeros(8, 16)},
        r"quantize\.embed\.weight is the codebook of a Gumbel",
    ),
    "continuous latents": (without("quantize.embedding.weight"), r"has an encoder and no codebook \(quantize"),
    "a whole model without": (
        lambda state: whole_model(without("quant_conv.bias")(state)),
        r"missing: quant_conv\.bias$",
    ),
    "another kind": (lambda state: var_state(), r"quant_resi"),
    "nothing of it": (lambda state: {"a": torch.zeros(1)}, r"left over: a$"),
    "not finite": (
        lambda state: {**state, "quant_conv.bias": torch.full((16,), torch.nan)},
        r"quant_conv\.bias has values that are not finite",
    ),
    "only odd widths": (plus("encoder.conv_in.weight", 40, 3, 3, 3), r"multiple of 32"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_every_name_is_accounted_for(spoil: Callable[[State], State], message: str) -> None:
    with pytest.raises(TokenizerError, match=rf"(?m){message}") as caught:
        read_network(spoil(taming_state()), (dialects.TAMING,), Path("last.ckpt"))
    assert str(caught.value).startswith("last.ckpt: ")
    assert len(str(caught.value)) < 4000


@pytest.mark.parametrize(
    ("phis", "counted"), [(("0", "1"), None), (("qresi",), 2), (("0", "1"), 2)], ids=["convolutions", "counts", "both"]
)
def test_scales_are_asked_for_where_the_file_tells_of_others(
    tmp_path: Path, phis: tuple[str, ...], counted: int | None
) -> None:
    state = var_state(phis=phis)
    del state["quantize.ema_vocab_hit_SV"]
    if counted:
        state["quantize.ema_vocab_hit_SV"] = torch.zeros(counted, VAR.K)
    with pytest.raises(TokenizerError, match="tells of 2 scales, and without --patch-nums there are 10"):
        imported(tmp_path, "var", state)
    imported(tmp_path, "var", state, **{"patch-nums": (1, 2, 3)})  # what is said counts


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tokenizer = imported(tmp_path, "var", var_state(), **{"patch-nums": (1, 2)})
    with pytest.raises(TokenizerError, match=r"scales 1, 2 end in a grid of 2 x 2 tokens, and this image has 3 x 3"):
        tokenizer.geometry((48, 48))
    with pytest.raises(ConfigError, match="no block layout 'raster'; known: multiscale"):
        load_tokenizer(tmp_path / "tokenizer", "raster")
    path = tmp_path / "tokenizer/config.json"
    config = json.loads(path.read_text())
    for wrong in ([2, 1], [], [0, 2]):
        config["identity"]["patch_nums"] = wrong
        path.write_text(json.dumps(config))
        with pytest.raises(TokenizerError, match=r"identity\.patch_nums.*each is finer than the last"):
            load_tokenizer(tmp_path / "tokenizer")


def test_a_quantizer_that_uses_other_codes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(tmp_path, "llamagen", llamagen_state())
    from pipeline.models.networks.quantizer import VectorQuantizer

    features = VectorQuantizer.features
    monkeypatch.setattr(VectorQuantizer, "features", lambda self, idx: 1.01 * features(self, idx))
    with pytest.raises(TokenizerError, match=r"tokenizer: on a test image the model itself used other codes than its"):
        load_tokenizer(tmp_path / "tokenizer")
