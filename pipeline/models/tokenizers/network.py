"""A torch network with a code search as a tokenizer.

Shape letters: B images of H x W pixels, h and w grid sides, L_i tokens of block i, K codes, C their length.
"""

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.arithmetic import Arithmetic, float32_arithmetic
from pipeline.models.layouts.layout import BlockLayout, Indices
from pipeline.models.networks.exact_norm import ExactGroupNorm, make_norms_exact
from pipeline.models.networks.images import check_images
from pipeline.models.networks.search import nearest_codes
from pipeline.models.networks.search_fused import FusedSearch
from pipeline.models.networks.search_trial import Searcher, use_if_equal
from pipeline.models.networks.vqgan.norms import GroupNorm, kernels_work
from pipeline.models.networks.vqgan.winograd import Conv3x3
from pipeline.models.rules.embedder import Embedder
from pipeline.models.rules.lookup import LOOKUP, listed
from pipeline.models.rules.rule import Rule
from pipeline.models.tokenizers.pixels import Normalizer, Pixels
from pipeline.models.tokenizers.protocol import NO_TOKEN, Codebook, Precision, not_finite
from pipeline.records import JSON, Geometry, Normalization

_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Quantizer(Protocol):
    """The part of a network that finds codes, always in float32."""

    def get_codebook(self) -> Tensor:
        """The table [K, C] that embedding sequences are made of."""

    def search(self, z_BChw: Tensor, /) -> Indices:
        """The indices of vectors [B, C, h, w]: what the layouts of the tokenizer split."""


class TokenNetwork(Protocol):
    """What `NetworkTokenizer` needs of a torch module."""

    @property
    def downsampling(self) -> int:
        """Pixels per token along each side."""

    @property
    def encoder(self) -> nn.Module:
        """All that runs in the precision asked for."""

    @property
    def quantize(self) -> Quantizer:
        """Where codes are found."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """As of any torch module."""

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) for an image of so many pixels. Raises TokenizerError for a size that it cannot take."""

    def encode(self, img_B3HW: Tensor, /) -> Tensor:
        """Images to vectors [B, C, h, w], in the dtype of the encoder. Raises TokenizerError for other input."""

    def decode_indices(self, idx: Indices, /) -> Tensor:
        """Indices, as `search` finds them, to images [B, 3, H, W]. Raises TokenizerError where that cannot be done."""


class NetworkTokenizer:
    """A network as a `Tokenizer`. It leaves the network's training mode and statistics alone.

    Args:
        identity: what the tokenizer says of itself, `TokenizerFolder.identity_json`.
        rule_arrays: those that the rule names.
        decodes: whether the network can make images of indices.
    """

    def __init__(
        self,
        model: TokenNetwork,
        layout: BlockLayout,
        normalization: Normalization,
        identity: JSON,
        rule: Rule = LOOKUP,
        rule_arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        decodes: bool = True,
    ) -> None:
        self.model = model
        self.layout = layout
        self.normalization = normalization
        self.downsampling = model.downsampling
        self.rule = rule
        self.rule_arrays = rule_arrays or {}
        self._decodes = decodes
        self._identity = identity
        self._precision: Precision = "fp32"
        self._encodes = model
        self._memory_format, self._fuses = torch.channels_last, False
        self._normalize = Normalizer(normalization)
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._compiling, self._compiled_shapes = threading.Lock(), set[torch.Size]()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.encoder.parameters()).device

    @property
    def codebook(self) -> Codebook:
        table_KC = self.model.quantize.get_codebook().detach().float().cpu().numpy()
        return Codebook("table", vocab_size=len(table_KC), embedding_dim=table_KC.shape[1], table=table_KC)

    def to(self, device: torch.device | str, precision: Precision = "fp32") -> Self:
        """Move to a device and choose the precision of the encoder.

        `fp32` means float32 throughout: TF32, which torch allows in convolutions by default, is off. `tf32` is
        for CUDA. For `bf16` and `fp16` a copy of the encoder is made; the model itself stays float32.

        Raises TokenizerError for an unknown precision, ConfigError for one that the device lacks.
        """
        if precision not in _DTYPES:
            raise TokenizerError(f"no precision {precision!r}; known: {', '.join(_DTYPES)}")
        kind = torch.device(device).type
        if precision == "tf32" and kind != "cuda":
            raise ConfigError(f"tokenize.precision: tf32 is for CUDA, and this device is {kind}: set it to fp32")
        self._precision = precision
        self._lay_out(self.model.to(device))
        self._encodes, self._compiled = self.model, None
        if isinstance(self.model.quantize, Searcher):
            self.model.quantize.nearest = nearest_codes
        if _DTYPES[precision] != torch.float32:
            self._encodes = copy.deepcopy(self.model)
            self._encodes.encoder.to(_DTYPES[precision])
        return self

    def use_fast_search(self, images: int, image_size: tuple[int, int]) -> str | None:
        """On CUDA, search by a kernel without a matrix of distances, until the next `to`. See `FastSearch`."""
        quantize = self.model.quantize
        if self.device.type != "cuda" or not isinstance(quantize, Searcher):
            return None
        try:
            search = FusedSearch()
        except ImportError as error:
            raise TokenizerError(str(error)) from error
        use_if_equal(search, quantize, images, self.model.grid_of(*image_size))
        return search.name

    @torch.no_grad()
    def encode(self, img_B3HW: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] on any device to idx_Bl: int64 [B, L_i] per block.

        Raises TokenizerError for images that the model cannot take, and where its vectors are not finite: the search
        would give those some code all the same. On an accelerator, where to look would be to wait for it, all tokens of
        such an image are NO_TOKEN instead.
        """
        check_images(img_B3HW)
        pixels = img_B3HW.to(self.device).contiguous(memory_format=self._memory_format)
        return self._search(self._vectors(self._encodes.encode, pixels))

    @torch.no_grad()
    def encode_pixels(self, img_B3HW: Tensor) -> list[Tensor]:
        """uint8 images [B, 3, H, W] on any device to what `encode` gives for them normalised; raises as it does.

        Raises ConfigError where `compile` was asked for and cannot be had.
        """
        img_B3HW = img_B3HW.to(self.device)
        if self._compiled is None:
            return self.encode(self._normalize(img_B3HW))
        with _compiler_errors(), self._alone_at_first(img_B3HW.shape):
            # Always the same format: another one would be compiled anew.
            z_BChw = self._vectors(self._compiled, img_B3HW.contiguous(memory_format=torch.channels_last))
        return self._search(z_BChw)

    def compile(self) -> None:
        """Have torch compile normalisation and encoder as one graph for each shape, until the next `to`."""
        if self._compiled is not None:
            return
        # A shape of its own for each graph: one graph for all shapes would give other tokens from the second shape on.
        graph = Pixels(self._encodes.encode, self.normalization).to(self.device)
        self._compiled = torch.compile(graph, fullgraph=True, dynamic=False)
        self._compiled_shapes.clear()

    @contextlib.contextmanager
    def _alone_at_first(self, shape: torch.Size) -> Iterator[None]:
        """Has other threads wait while a shape is compiled: https://github.com/pytorch/pytorch/issues/136833."""
        with contextlib.nullcontext() if shape in self._compiled_shapes else self._compiling:
            yield
        self._compiled_shapes.add(shape)

    def execution(self) -> JSON:
        """Whether the encoder is compiled; which group norm and convolutions it has where they are not torch's."""
        if self._compiled is not None:
            return {"compile": True}
        if self._fuses:
            return {"group_norm": "triton"}
        if self.device.type != "cpu" or self._precision != "fp32":
            return {}
        modules = list(self.model.encoder.modules())
        is_wide = any(isinstance(module, Conv3x3) and module.is_wide for module in modules)
        is_exact = any(isinstance(module, ExactGroupNorm) for module in modules)
        return {**({"convolution": "winograd"} if is_wide else {}), **({"group_norm": "exact"} if is_exact else {})}

    def _vectors(self, encode: Callable[[Tensor], Tensor], pixels_B3HW: Tensor) -> Tensor:
        arithmetic: Arithmetic = "tf32" if self._precision == "tf32" else "ieee"
        with float32_arithmetic(arithmetic), torch.autocast(self.device.type, enabled=False):
            return encode(pixels_B3HW)

    def _search(self, z_BChw: Tensor) -> list[Tensor]:
        finite_B = z_BChw.isfinite().flatten(1).all(dim=1)
        if z_BChw.is_cpu and not finite_B.all():
            raise not_finite(self._precision)
        blocks = self.layout.split(self.model.quantize.search(z_BChw))
        return blocks if z_BChw.is_cpu else [block.where(finite_B[:, None], NO_TOKEN) for block in blocks]

    @torch.no_grad()
    def decode(self, idx_Bl: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Tensor:
        """Block index lists on any device to normalised float32 images [B, 3, H, W].

        Raises TokenizerError as `BlockLayout.join` and the network do.
        """
        with float32_arithmetic("ieee"), torch.autocast(self.device.type, enabled=False):
            return self.model.decode_indices(self.layout.join(listed(idx_Bl), grid)).float()

    @torch.no_grad()
    def idxBl_to_var_input(self, idx_Bl: Sequence[Tensor]) -> Tensor:
        """Block index lists to the embedding sequence x_BLC, float32 [B, L_rule, C], by the rule of the tokenizer.

        A store gives the same without the model. Raises TokenizerError as the rule does.
        """
        codebook_KC = self.model.quantize.get_codebook().detach().float()
        arrays = {name: torch.from_numpy(array) for name, array in self.rule_arrays.items()}
        return Embedder(self.rule, codebook_KC, arrays)(idx_Bl)

    def geometry(self, image_size: tuple[int, int]) -> Geometry:
        grid = self.model.grid_of(*image_size)
        return Geometry(
            image_size=image_size,
            grid=grid,
            layout=self.layout.name,
            block_lengths=self.layout.block_lengths(grid),
            decodable=self.layout.decodable and self._decodes,
        )

    def identity(self) -> JSON:
        return copy.deepcopy(self._identity)

    def _lay_out(self, model: nn.Module) -> None:
        """Put weights into the memory format in which the encoder is fastest on its device.

        As `Module.to` does it, which cannot where there are tensors of five dimensions.
        """
        make_norms_exact(self.model.encoder)
        norms = [module for module in self.model.encoder.modules() if isinstance(module, nn.GroupNorm)]
        ours = all(isinstance(norm, GroupNorm) for norm in norms)
        on_cuda = self.device.type == "cuda"
        self._fuses = on_cuda and bool(norms) and ours and kernels_work(self.device)
        # channels_last is what convolutions want, on CPUs and on GPUs with tensor cores. But torch's group norm has no
        # kernel for it on CUDA, and makes copies that take longer than those of the convolutions.
        copies = on_cuda and norms and not self._fuses
        self._memory_format = torch.contiguous_format if copies else torch.channels_last
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=self._memory_format)


@contextlib.contextmanager
def _compiler_errors() -> Iterator[None]:
    """Raise ConfigError for what torch's compiler cannot do."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        raise ConfigError(
            f"tokenize.compile: torch cannot compile this encoder here ({reason}): set it to false"
        ) from error
