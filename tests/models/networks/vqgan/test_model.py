"""The network from published names, beside references that go from name to name."""

import pytest
import torch
from published import LLAMAGEN, TAMING, VAR, Family, State, as_deep, nearest, phi_tensors
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.networks.vqgan import dialects
from pipeline.models.networks.vqgan.architecture import Architecture, Coder, architecture_of
from pipeline.models.networks.vqgan.dialects import Dialect
from pipeline.models.networks.vqgan.model import Vqgan

FOUR = Family(multipliers=(1, 2), attention=(0,), depth=1, C=4, latent=5)
"""4x is two levels; attention where it stands in no published one; other depths."""

CASES: dict[str, tuple[Family, Dialect]] = {
    "taming": (as_deep(TAMING), dialects.TAMING),
    "llamagen": (as_deep(LLAMAGEN), dialects.LLAMAGEN),
    "var": (as_deep(VAR), dialects.VAR[0]),
    "taming without attention on a level": (FOUR, dialects.TAMING),
}


def images(B: int, H: int, W: int) -> Tensor:
    return torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(1)) * 2 - 1


def filled(state: State, dialect: Dialect, **options: object) -> Vqgan:
    """A network of the tensors of a checkpoint."""
    levels = dialect.levels(state)
    shapes = {ours: tuple(state[theirs].shape) for theirs, ours in dialect.translated(state).items()}
    model = Vqgan(architecture_of(shapes), **options)  # type: ignore[arg-type]
    model.load_state_dict(
        {name: torch.cat([state[part] for part in dialect.sources(name, levels)]) for name in model.state_dict()}
    )
    return model.eval()


@pytest.mark.parametrize(("family", "dialect"), CASES.values(), ids=CASES)
def test_it_computes_what_the_published_names_say(family: Family, dialect: Dialect) -> None:
    state = family.tensors()
    model = filled(state, dialect)
    H, W = 2 * model.downsampling, 3 * model.downsampling
    with torch.no_grad():
        z_BChw = model.encode(images(2, H, W))
        assert z_BChw.shape == (2, family.C, 2, 3)
        torch.testing.assert_close(z_BChw, family.encode(state, images(2, H, W)), atol=1e-4, rtol=1e-4)
        q_BChw = torch.randn(2, family.C, 2, 3)
        torch.testing.assert_close(model.decode(q_BChw), family.decode(state, q_BChw), atol=1e-4, rtol=1e-4)
        idx_Bhw = model.search(images(2, H, W))
        z_NC = z_BChw.permute(0, 2, 3, 1).flatten(0, 2)
        assert torch.equal(idx_Bhw.flatten(), nearest(z_NC, state["quantize.embedding.weight"]))


@pytest.mark.parametrize(("family", "dialect"), CASES.values(), ids=CASES)
def test_every_name_goes_both_ways(family: Family, dialect: Dialect) -> None:
    state = family.tensors()
    levels, ours = dialect.levels(state), dialect.translated(state)
    assert ours.keys() == state.keys()
    assert {theirs for name in set(ours.values()) for theirs in dialect.sources(name, levels)} == state.keys()


def test_scales_share_convolutions_as_the_names_say() -> None:
    for dialect, names in zip(dialects.VAR, (["qresi_ls.0", "qresi_ls.1"], ["0", "1", "2"], ["qresi"]), strict=True):
        state = phi_tensors(4, names)
        assert sorted(dialect.translated(state).values()) == sorted(
            f"quantize.phi.{number}.{what}" for number in range(len(names)) for what in ("weight", "bias")
        )


def architecture(**changes: object) -> Architecture:
    coder = Coder(widths=(32,), depth=1, attention=(False,), middle_attention=False)
    fields = {"stem": 32, "latent": 4, "quant_kernel": 1, "vocab_size": 8, "embedding_dim": 4}
    return Architecture(encoder=coder, decoder=coder, **{**fields, **changes})  # type: ignore[arg-type]


def test_the_architecture_is_read_off_the_tensors() -> None:
    model = Vqgan(architecture())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert architecture_of(shapes) == model.architecture
    with pytest.raises(TokenizerError, match=r"there is no encoder\.conv_in\.weight"):
        architecture_of({name: shape for name, shape in shapes.items() if "encoder.conv_in" not in name})
    with pytest.raises(TokenizerError, match=r"no such network: .*multiple of 32"):
        architecture_of({**shapes, "encoder.conv_in.weight": (40, 3, 3, 3)})


def test_images_it_cannot_take_are_refused() -> None:
    model = filled(FOUR.tensors(), dialects.TAMING)
    for img in (images(1, 8, 9), images(1, 8, 8)[:, :2], images(1, 8, 8).long(), images(1, 8, 8)[0]):
        with pytest.raises(TokenizerError):
            model.encode(img)
