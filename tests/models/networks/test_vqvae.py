import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import ModelConfig
from pipeline.errors import ConfigError, TokenizerError
from pipeline.models import SimpleVQVAE
from pipeline.models.layouts.cuts import cut_named

OPTIONS: list[dict[str, Any]] = [
    {},
    {"residual_blocks": 2, "final_relu": False},
    {"ema_decay": 0.9, "kmeans_init": True, "revive_after": 2, "cosine": True},
]


def model(**options: Any) -> SimpleVQVAE:
    """A small model whose codes lie where its vectors do, so that many are used."""
    torch.manual_seed(0)
    vqvae = SimpleVQVAE(**{"vocab_size": 16, "embedding_dim": 8, "hidden_dim": 12, **options})
    with torch.no_grad():
        z_NC = vqvae.encode(images(8, 16, 16)).permute(0, 2, 3, 1).reshape(-1, 8)
        vqvae.quantize.embedding.weight.copy_(z_NC[torch.randperm(len(z_NC))[: vqvae.vocab_size]])
    return vqvae


def images(*shape: int) -> Tensor:
    B, H, W = shape
    return torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(B * H + W)) * 2 - 1


def test_names_and_shapes_of_the_default_model() -> None:
    state = SimpleVQVAE().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == {
        "encoder.0.weight": [128, 3, 4, 4],
        "encoder.0.bias": [128],
        "encoder.2.weight": [64, 128, 4, 4],
        "encoder.2.bias": [64],
        "quantize.embedding.weight": [16, 64],
        "decoder.0.weight": [64, 128, 4, 4],
        "decoder.0.bias": [128],
        "decoder.2.weight": [128, 3, 4, 4],
        "decoder.2.bias": [3],
    }


def test_the_configuration_has_the_arguments_of_the_model_and_their_defaults() -> None:
    parameters = inspect.signature(SimpleVQVAE).parameters
    network = {"network", "downsampling", "quantizer", "patch_nums"}
    assert ModelConfig().model_dump(exclude=network) == {
        name: parameter.default for name, parameter in parameters.items()
    }


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20), (4, 28), (36, 4)])
def test_shapes_at_any_aspect_ratio(options: dict[str, Any], height: int, width: int) -> None:
    vqvae = model(**options)
    reconstruction, vq_loss, indices = vqvae(images(2, height, width))
    assert tuple(reconstruction.shape) == (2, 3, height, width)
    assert tuple(vq_loss.shape) == ()
    assert (indices.dtype, tuple(indices.shape)) == (torch.int64, (2 * height * width // 16,))
    for name in ("raster", "quadrants", "diagonal"):
        idx_Bl = vqvae.img_to_idxBl(images(2, height, width), name)
        lengths = cut_named(name).block_lengths((height // 4, width // 4))
        assert [tuple(block.shape) for block in idx_Bl] == [(2, length) for length in lengths]
        assert tuple(vqvae.idxBl_to_var_input(idx_Bl).shape) == (2, sum(lengths), 8)


def test_every_gradient_is_that_of_the_formulas() -> None:
    vqvae = model().double()
    img = images(2, 8, 12).double()
    reconstruction, vq_loss, indices = vqvae(img)
    (F.mse_loss(reconstruction, img) + vq_loss).backward()
    got = {name: parameter.grad for name, parameter in vqvae.named_parameters()}

    state = {name: value.detach().clone().requires_grad_() for name, value in vqvae.state_dict().items()}
    weight = {name.removesuffix(".weight"): state[name] for name in state if name.endswith("weight")}
    bias = {name.removesuffix(".bias"): state[name] for name in state if name.endswith("bias")}
    z = F.relu(F.conv2d(img, weight["encoder.0"], bias["encoder.0"], stride=2, padding=1))
    z = F.relu(F.conv2d(z, weight["encoder.2"], bias["encoder.2"], stride=2, padding=1))
    z_NC = z.detach().permute(0, 2, 3, 1).reshape(-1, 8)
    codebook_KC = state["quantize.embedding.weight"].detach()
    nearest_N = (z_NC[:, None] - codebook_KC).square().sum(-1).argmin(dim=1)
    q = codebook_KC[nearest_N].reshape(2, 2, 3, 8).permute(0, 3, 1, 2).requires_grad_()
    out = F.relu(F.conv_transpose2d(q, weight["decoder.0"], bias["decoder.0"], stride=2, padding=1))
    out = F.conv_transpose2d(out, weight["decoder.2"], bias["decoder.2"], stride=2, padding=1)
    (out - img).square().mean().backward()
    assert q.grad is not None
    z.backward(q.grad + 0.25 * 2 * (z - q).detach() / z.numel())
    codebook_grad = torch.zeros_like(codebook_KC).index_add_(
        0, nearest_N, 2 * (codebook_KC[nearest_N] - z_NC) / z_NC.numel()
    )
    state["quantize.embedding.weight"].grad = codebook_grad

    assert torch.equal(indices, nearest_N)
    assert len(nearest_N.unique()) > 3
    torch.testing.assert_close(reconstruction, out)
    torch.testing.assert_close(vq_loss, 1.25 * (z - q).square().mean())
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, state[name].grad, msg=name)


def test_no_one_hot_codes_and_no_distance_matrix_in_a_training_step(largest_tensor: Any) -> None:
    vqvae = SimpleVQVAE(vocab_size=2048, embedding_dim=4, hidden_dim=4)
    with largest_tensor:
        reconstruction, vq_loss, _ = vqvae(images(4, 256, 256))
        (reconstruction.mean() + vq_loss).backward()
    assert 1 << 20 < largest_tensor.bytes <= 16 << 20 < 4 * 64 * 64 * 2048 * 4


def test_indices_and_layouts_agree_with_forward() -> None:
    vqvae, img = model(), images(3, 12, 20)
    idx_Bhw = vqvae(img)[2].reshape(3, 3, 5)
    for name in ("raster", "quadrants", "diagonal"):
        expected = cut_named(name).split(idx_Bhw)
        assert all(map(torch.equal, vqvae.img_to_idxBl(img, name), expected))
    assert all(map(torch.equal, vqvae.img_to_idxBl(img), cut_named("diagonal").split(idx_Bhw)))
    with pytest.raises(ConfigError, match="spiral"):
        vqvae.img_to_idxBl(img, "spiral")


@pytest.mark.parametrize("residual_blocks", [0, 2])
def test_the_final_relu_keeps_vectors_in_the_positive_orthant_and_can_be_left_out(residual_blocks: int) -> None:
    lowest = [
        model(final_relu=relu, residual_blocks=residual_blocks).encode(images(2, 16, 16)).min().item()
        for relu in (True, False)
    ]
    assert lowest[0] == 0
    assert lowest[1] < 0


@pytest.mark.parametrize("options", OPTIONS)
def test_img_to_idxBl_leaves_mode_gradients_and_statistics_alone(options: dict[str, Any]) -> None:
    vqvae = model(**options)
    before = {name: value.clone() for name, value in vqvae.state_dict().items()}
    graphs: list[bool] = []
    vqvae.encoder.register_forward_hook(lambda module, args, out: graphs.append(out.requires_grad))
    for training in (True, False):
        vqvae.train(training)
        vqvae.img_to_idxBl(images(4, 16, 16).requires_grad_())
        assert all(module.training == training for module in vqvae.modules())
    assert graphs == [False, False]  # nothing is kept for a backward pass
    assert all(torch.equal(before[name], value) for name, value in vqvae.state_dict().items())


@pytest.mark.parametrize("name", ["raster", "quadrants"])
@pytest.mark.parametrize("options", OPTIONS[:2])
def test_tokens_decode_to_the_reconstruction(name: str, options: dict[str, Any]) -> None:
    vqvae, img = model(**options).eval(), images(2, 12, 20)
    idx_Bl = vqvae.img_to_idxBl(img, name)
    torch.testing.assert_close(vqvae.idxBl_to_img(idx_Bl, name, (3, 5)), vqvae(img)[0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_batch_of_no_images(options: dict[str, Any], training: bool) -> None:
    vqvae = SimpleVQVAE(vocab_size=16, embedding_dim=8, hidden_dim=12, **options).train(training)
    reconstruction, vq_loss, indices = vqvae(torch.empty(0, 3, 12, 20))
    (reconstruction.sum() + vq_loss).backward()
    assert (reconstruction.shape, vq_loss.item(), indices.shape) == ((0, 3, 12, 20), 0, (0,))
    assert all(value.isfinite().all() for value in vqvae.state_dict().values())
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in vqvae.parameters())
    for name in ("raster", "quadrants"):
        idx_Bl = vqvae.img_to_idxBl(torch.empty(0, 3, 12, 20), name)
        lengths = cut_named(name).block_lengths((3, 5))
        assert [tuple(block.shape) for block in idx_Bl] == [(0, length) for length in lengths]
        assert vqvae.idxBl_to_var_input(idx_Bl).shape == (0, 15, 8)
        assert vqvae.idxBl_to_img(idx_Bl, name, (3, 5)).shape == (0, 3, 12, 20)


def test_without_a_grid_tokens_are_decoded_as_a_square() -> None:
    vqvae = model()
    idx_Bl = vqvae.img_to_idxBl(images(2, 12, 12), "quadrants")
    assert torch.equal(vqvae.idxBl_to_img(idx_Bl, "quadrants"), vqvae.idxBl_to_img(idx_Bl, "quadrants", (3, 3)))
    with pytest.raises(TokenizerError, match=r"15 tokens fill no square grid; pass grid=\(h, w\)"):
        vqvae.idxBl_to_img(vqvae.img_to_idxBl(images(2, 12, 20), "raster"), "raster")
    with pytest.raises(TokenizerError, match="'diagonal' leaves cells out"):
        vqvae.idxBl_to_img(vqvae.img_to_idxBl(images(2, 16, 16)), "diagonal", (4, 4))


def test_var_input_is_block_after_block_from_the_codebook() -> None:
    vqvae = model()
    idx_Bl = vqvae.img_to_idxBl(images(2, 12, 20), "quadrants")
    x_BLC = vqvae.idxBl_to_var_input(idx_Bl)
    assert torch.equal(x_BLC, vqvae.quantize.embedding.weight[torch.cat(idx_Bl, dim=1)])
    dtypes = (torch.uint8, torch.uint16, torch.int16, torch.int64)
    mixed = [block.to(dtype) for block, dtype in zip(idx_Bl, dtypes, strict=True)]
    assert torch.equal(vqvae.idxBl_to_var_input(mixed), x_BLC)


@pytest.mark.parametrize(
    ("idx_Bl", "message"),
    [
        ([], "expected a list of blocks"),
        (
            torch.zeros(2, 4, dtype=torch.int64),
            r"expected a list of blocks \[B, L_i\], not one tensor of shape \[2, 4\]",
        ),
        ([torch.zeros(2, 4, dtype=torch.int64), torch.zeros(3, 4, dtype=torch.int64)], r"\[\[2, 4\], \[3, 4\]\]"),
        ([torch.zeros(2, 4)], "must be integers, not torch.float32"),
        ([torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.bool)], "not torch.bool"),
        ([torch.full((2, 4), 16)], "code index 16 is not in 0 .. 15"),
        ([torch.full((2, 4), -1)], "code index -1 is not in 0 .. 15"),
    ],
)
def test_blocks_that_cannot_be_looked_up_are_refused(idx_Bl: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        model().idxBl_to_var_input(idx_Bl)


@pytest.mark.parametrize(
    ("img", "message"),
    [
        (torch.zeros(1, 3, 18, 16), "18 x 16 pixels.*multiples of 4"),
        (torch.zeros(1, 3, 16, 6), "16 x 6 pixels.*multiples of 4"),
        (torch.zeros(1, 3, 0, 16), "0 x 16 pixels"),
        (torch.zeros(1, 1, 16, 16), r"\[B, 3, H, W\], not \[1, 1, 16, 16\]"),
        (torch.zeros(3, 16, 16), r"\[B, 3, H, W\], not \[3, 16, 16\]"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "normalised floats, not torch.uint8: see normalize_pixels"),
    ],
)
def test_images_that_cannot_be_encoded_are_refused(img: Tensor, message: str) -> None:
    for call in (model(), model().img_to_idxBl):
        with pytest.raises(TokenizerError, match=message):
            call(img)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_in_half_precision_encode_train_and_decode(dtype: torch.dtype) -> None:
    vqvae, img = model().to(dtype), images(2, 12, 20)
    for pixels in (img, img.to(dtype)):
        reconstruction, vq_loss, indices = vqvae(pixels)
        (reconstruction.float().square().mean() + vq_loss).backward()
        assert reconstruction.dtype == dtype
        assert vq_loss.dtype == torch.float32
    idx_Bl = vqvae.img_to_idxBl(img, "raster")
    assert torch.equal(idx_Bl[0].reshape(-1), indices)
    assert tuple(vqvae.idxBl_to_img(idx_Bl, "raster", (3, 5)).shape) == (2, 3, 12, 20)
    assert all(parameter.grad is not None for parameter in vqvae.parameters())


def test_training_under_autocast() -> None:
    vqvae = model()
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction, vq_loss, _ = vqvae(images(2, 12, 20))
    (reconstruction.float().square().mean() + vq_loss).backward()
    assert vq_loss.dtype == torch.float32
    assert all(parameter.grad is not None for parameter in vqvae.parameters())


def test_the_tokens_of_an_image_depend_neither_on_its_batch_nor_on_threads() -> None:
    vqvae, img = model(vocab_size=64), images(8, 32, 32)
    order = torch.randperm(8)
    expected = vqvae.img_to_idxBl(img, "raster")[0]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert torch.equal(vqvae.img_to_idxBl(img, "raster")[0], expected)
            assert torch.equal(vqvae.img_to_idxBl(img[order], "raster")[0], expected[order])
    finally:
        torch.set_num_threads(threads)
