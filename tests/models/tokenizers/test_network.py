import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models import SimpleVQVAE
from pipeline.models.layouts.cuts import cut_named
from pipeline.models.networks.search import nearest_codes
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.protocol import Precision, Tokenizer
from pipeline.records import Geometry, Normalization


def tokenizer(layout: str = "quadrants", **options: bool) -> NetworkTokenizer:
    """A tokenizer whose codes lie where its vectors do."""
    torch.manual_seed(0)
    model = SimpleVQVAE(32, 8, 12, **options)
    with torch.no_grad():
        z_NC = model.encode(images(8, 16, 16)).permute(0, 2, 3, 1).reshape(-1, 8)
        model.quantize.embedding.weight.copy_(z_NC[:: len(z_NC) // 32])
    return NetworkTokenizer(model, cut_named(layout), Normalization(), {"weights": "sha256:0"})


def images(B: int, H: int, W: int) -> Tensor:
    return torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(H * W)) * 2 - 1


def test_it_has_the_protocol() -> None:
    guest: Tokenizer = tokenizer()
    assert (guest.rule.name, guest.downsampling, guest.normalization) == ("lookup", 4, Normalization())


def test_encode_and_decode_are_those_of_the_model() -> None:
    ours, img = tokenizer(), images(3, 12, 20)
    idx_Bl = ours.encode(img)
    assert all(map(torch.equal, idx_Bl, ours.model.img_to_idxBl(img, "quadrants")))
    decoded = ours.decode([block.to(torch.uint8) for block in idx_Bl], (3, 5))
    assert decoded.dtype == torch.float32
    assert not decoded.requires_grad
    torch.testing.assert_close(decoded, ours.model(img)[0])
    assert ours.model.training  # encoding in the middle of training changes no mode


@pytest.mark.parametrize("shape", [(1, 2, 16), (1, 4, 4), (2, 16)])
def test_one_tensor_is_no_list_of_blocks(shape: tuple[int, ...]) -> None:
    """Its images would pass for blocks."""
    ours, idx = tokenizer("raster"), torch.zeros(shape, dtype=torch.int64)
    calls = (ours.decode, ours.idxBl_to_var_input, ours.model.idxBl_to_var_input)
    for call in (*calls, lambda idx_Bl: ours.model.idxBl_to_img(idx_Bl, "raster")):
        with pytest.raises(TokenizerError, match=r"not one tensor of shape .*: give batch\.idx_Bl"):
            call(idx)


def test_one_image_is_no_batch() -> None:
    with pytest.raises(TokenizerError, match=r"images must be \[B, 3, H, W\], not \[3, 16, 16\]"):
        tokenizer().encode(images(1, 16, 16)[0])


def test_decode_says_why_it_cannot() -> None:
    with pytest.raises(TokenizerError, match="'diagonal' leaves cells out"):
        tokenizer("diagonal").decode(tokenizer("diagonal").encode(images(1, 8, 8)))


@pytest.mark.parametrize("cosine", [False, True])
def test_the_codebook_is_exactly_what_var_input_looks_up(cosine: bool) -> None:
    ours = tokenizer(cosine=cosine)
    codebook = ours.codebook
    assert (codebook.kind, codebook.vocab_size, codebook.embedding_dim) == ("table", 32, 8)
    assert codebook.table is not None
    assert codebook.table.dtype == np.float32
    idx_Bl = ours.encode(images(2, 12, 20))
    x_BLC = ours.model.idxBl_to_var_input(idx_Bl).detach().numpy()
    np.testing.assert_array_equal(codebook.table[torch.cat(idx_Bl, dim=1).numpy()], x_BLC)
    assert np.allclose(np.linalg.norm(codebook.table, axis=1), 1) == cosine


def test_geometry() -> None:
    assert tokenizer("diagonal").geometry((12, 20)) == Geometry(
        image_size=(12, 20), grid=(3, 5), layout="diagonal", block_lengths=(2, 6), decodable=False
    )
    with pytest.raises(TokenizerError, match="12 x 21 pixels"):
        tokenizer().geometry((12, 21))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precision_is_that_of_the_encoder_alone(precision: Precision) -> None:
    ours, img = tokenizer(), images(4, 32, 32)
    dtypes: list[torch.dtype] = []
    ours.model.encoder.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    ours.to("cpu", precision)
    exact, reduced = tokenizer().encode(img), ours.encode(img)
    assert dtypes == [{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]]
    same = torch.cat(exact, dim=1) == torch.cat(reduced, dim=1)
    assert same.all() if precision == "fp32" else same.float().mean() > 0.9
    assert {parameter.dtype for parameter in ours.model.parameters()} == {torch.float32}
    assert ours.decode(reduced).dtype == torch.float32
    # Nothing is lost on the way back to fp32.
    assert all(map(torch.equal, ours.to("cpu", "fp32").encode(img), exact))


def test_fp32_means_fp32_whatever_the_process_has_set() -> None:
    ours, img = tokenizer(), images(4, 32, 32)
    exact = ours.encode(img)
    backends = torch.backends
    seen = []
    ours.model.encoder.register_forward_hook(
        lambda *_: seen.extend([backends.cudnn.conv.fp32_precision, backends.mkldnn.conv.fp32_precision])
    )
    torch.backends.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", torch.bfloat16):
            under = ours.encode(img)
    finally:
        torch.backends.fp32_precision = "none"
    assert all(map(torch.equal, under, exact))
    assert seen in (["ieee", "ieee"], ["none", "ieee"])  # cuDNN has no bf16 of its own: nothing is nothing there


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(TokenizerError, match="no precision 'int8'; known: fp32, tf32, bf16, fp16"):
        tokenizer().to("cpu", "int8")


def test_tf32_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenize\.precision: tf32 is for CUDA, and this device is cpu"):
        tokenizer().to("cpu", "tf32")


def test_an_encoder_that_overflows_is_an_error_and_not_a_token() -> None:
    ours = tokenizer()
    with torch.no_grad():
        ours.model.encoder[0].weight.mul_(1e6)
    ours.to("cpu", "fp16")
    with pytest.raises(TokenizerError, match=r"not finite in fp16; use precision bf16 or fp32"):
        ours.encode(images(1, 8, 8))


def test_a_fast_search_is_for_cuda() -> None:
    ours = tokenizer()
    assert ours.use_fast_search(2, (16, 16)) is None
    assert ours.model.quantize.nearest is nearest_codes


def test_elsewhere_the_search_is_torchs_again() -> None:
    ours = tokenizer()
    ours.model.quantize.nearest = lambda z_NC, codebook_KC: pytest.fail("a kernel for another device")
    ours.to("cpu").encode(images(1, 8, 8))


def test_without_triton_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tokenizer()
    monkeypatch.setattr(NetworkTokenizer, "device", torch.device("cuda"))
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(TokenizerError, match="triton"):
        ours.use_fast_search(2, (16, 16))
    assert ours.model.quantize.nearest is nearest_codes


def test_a_quantizer_with_a_search_of_its_own_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tokenizer()
    monkeypatch.setattr(NetworkTokenizer, "device", torch.device("cuda"))
    del ours.model.quantize.nearest
    assert ours.use_fast_search(2, (16, 16)) is None
