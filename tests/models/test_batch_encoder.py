"""Batches of images into tokens, in threads."""

import functools
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support import new_threads
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models import SimpleVQVAE
from pipeline.models.batch_encoder import BatchEncoder
from pipeline.models.layouts.cuts import cut_named
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.pixels import normalize_pixels
from pipeline.models.tokenizers.protocol import NO_TOKEN, Precision
from pipeline.records import Normalization

CPU = torch.device("cpu")


def tokenizer(precision: Precision = "fp32", codes: int = 64) -> NetworkTokenizer:
    torch.manual_seed(0)
    model = SimpleVQVAE(codes, 8, 12)
    with torch.no_grad():
        z_NC = model.encode(torch.randn(8, 3, 32, 32)).permute(0, 2, 3, 1).reshape(-1, 8)
        model.quantize.embedding.weight.copy_(z_NC[:: len(z_NC) // codes][:codes])
    return NetworkTokenizer(model, cut_named("quadrants"), Normalization(), {"weights": "sha256:0"}).to(CPU, precision)


def images(B: int, side: int = 32) -> Tensor:
    return torch.randint(0, 256, (B, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(B))


def alone(ours: NetworkTokenizer, img_B3HW: Tensor) -> np.ndarray:
    return torch.cat(ours.encode(normalize_pixels(img_B3HW, ours.normalization)), dim=1).numpy()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 150])
def test_the_rows_that_count_have_the_tokens_of_the_tokenizer(precision: Precision, rows: int) -> None:
    ours, img_B3HW = tokenizer(precision), images(150)
    with BatchEncoder(ours, CPU, cores=2) as encoder:
        assert encoder.images_at_once((32, 32), 150) == 64
        tokens, seconds = encoder.submit(img_B3HW, rows).result()
    assert (tokens.dtype, tokens.shape) == (np.int64, (rows, 64))
    agreement = (tokens == alone(ours, img_B3HW)[:rows]).mean()
    assert agreement == 1 if precision == "fp32" else agreement > 0.99
    assert seconds > 0


def test_tokens_do_not_depend_on_the_cores_or_on_what_else_is_encoded() -> None:
    ours = tokenizer("bf16", codes=512)
    batches = [images(n) for n in (70, 71, 72)]
    found = []
    for cores in (1, 3):
        with BatchEncoder(ours, CPU, cores) as encoder:
            encodings = [encoder.submit(batch, len(batch)) for batch in batches]
            found.append([encoding.result()[0] for encoding in encodings])
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)


def test_images_beyond_the_rows_are_encoded_only_to_fill_a_piece() -> None:
    ours = tokenizer()
    encode, sizes = ours.encode, []
    ours.encode = lambda img: sizes.append(len(img)) or encode(img)  # type: ignore[method-assign,func-returns-value]
    with BatchEncoder(ours, CPU, cores=1) as encoder:
        encoder.submit(images(300), 70).result()
        assert sizes == [64, 64]
        encoder.submit(images(30), 25, at_most=8).result()
    assert sizes[2:] == [8, 8, 8, 6]


@pytest.mark.parametrize(("side", "at_once"), [(16, 256), (64, 16), (256, 1), (1024, 1)])
def test_pieces_have_so_many_pixels_that_they_stay_in_a_cache(side: int, at_once: int) -> None:
    with BatchEncoder(tokenizer(), CPU, cores=1) as encoder:
        assert encoder.images_at_once((side, side), 500) == at_once
        assert encoder.images_at_once((side, side), 1) == 1


def test_an_error_reaches_whoever_asks_for_the_tokens() -> None:
    ours = tokenizer()
    with BatchEncoder(ours, CPU, cores=2) as encoder:
        failing = encoder.submit(images(4, side=30), 4)
        good = encoder.submit(images(4), 4)
        with pytest.raises(Exception, match="30 x 30 pixels"):
            failing.result()
        assert len(good.result()[0]) == 4


def test_leaving_ends_the_threads() -> None:
    before = threading.enumerate()
    with BatchEncoder(tokenizer(), CPU, cores=2) as encoder:
        for _ in range(20):
            encoder.submit(images(150), 150)
    assert new_threads(before) == []


def test_images_without_tokens_are_an_error_where_they_reach_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator marks them, so that nothing waits for it."""
    ours = tokenizer()
    encode = ours.encode
    monkeypatch.setattr(ours, "encode", lambda img: [block.where(block > 3, NO_TOKEN) for block in encode(img)])
    with BatchEncoder(ours, CPU, cores=1) as encoder, pytest.raises(TokenizerError, match="values that are not finite"):
        encoder.submit(images(3), 3).result()


class Plain:
    """A tokenizer of somebody else's: what the protocol asks for, and no more."""

    def __init__(self, ours: NetworkTokenizer) -> None:
        self.normalization, self.encode = ours.normalization, ours.encode


def test_a_compiled_encoder_is_one_graph_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for torch's compiler, which is left out for the time that it takes."""
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    ours, img_B3HW = tokenizer(), images(64).contiguous(memory_format=torch.channels_last)
    before = alone(ours, img_B3HW)
    for _ in range(2):  # a second encoder of the same tokenizer compiles nothing
        with BatchEncoder(ours, CPU, cores=2, compiles=True) as encoder:
            encoder.warm_up((32, 32), 64)
            np.testing.assert_array_equal(encoder.submit(img_B3HW, 64).result()[0], before)
    assert counter.frame_count == 1
    assert encoder.execution == {"compile": True}
    assert BatchEncoder(tokenizer(), CPU, cores=1).execution == {}, "stores of before there was the key go on"


def test_what_cannot_be_compiled_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("no compiler for C++ here")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    encoder = BatchEncoder(tokenizer(), CPU, cores=1, compiles=True)
    with encoder, pytest.raises(ConfigError, match=r"tokenize.compile: .*no compiler for C.. here.*: set it to false"):
        encoder.warm_up((32, 32), 8)
    with pytest.raises(ConfigError, match=r"tokenize\.compile: Plain cannot be compiled: set it to false"):
        BatchEncoder(Plain(tokenizer()), CPU, cores=1, compiles=True)  # type: ignore[arg-type]


def test_a_tokenizer_that_only_encodes_gets_normalised_pixels() -> None:
    ours, img_B3HW = tokenizer(), images(5)
    with BatchEncoder(Plain(ours), CPU, cores=1) as encoder:  # type: ignore[arg-type]
        np.testing.assert_array_equal(encoder.submit(img_B3HW, 5).result()[0], alone(ours, img_B3HW))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torchs_compiler_changes_few_tokens(precision: Precision) -> None:
    ours, img_B3HW = tokenizer(precision), images(64)
    before = alone(ours, img_B3HW)
    with BatchEncoder(ours, CPU, cores=2, compiles=True) as encoder:
        tokens, _ = encoder.submit(img_B3HW, 64).result()
    assert (tokens == before).mean() > (0.999 if precision == "fp32" else 0.95)


@pytest.mark.parametrize(("device", "threads"), [("cpu", 3), ("cuda:1", 2), ("xpu", 2), ("mps", 1)])
def test_one_thread_where_a_second_would_end_the_process(device: str, threads: int) -> None:
    """torch's operations on an Apple GPU do not bear others beside them."""
    with BatchEncoder(tokenizer(), torch.device(device), cores=3) as encoder:
        assert encoder.threads == threads


def test_a_shape_is_compiled_by_one_thread_while_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's compiler does not bear two; once it has done its work, all go on side by side."""
    entered, met = list[int](), threading.Barrier(3, timeout=20)

    def compiled(graph: torch.nn.Module, **options: object) -> Callable[[Tensor], Tensor]:
        def run(img_B3HW: Tensor) -> Tensor:
            entered.append(len(entered))
            if len(entered) == 1:
                time.sleep(0.2)
                assert len(entered) == 1
            elif len(entered) > 4:
                met.wait()
            return graph(img_B3HW)  # type: ignore[no-any-return]

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    with BatchEncoder(tokenizer(), CPU, cores=3, compiles=True) as encoder:
        for batches in (4, 3):
            for encoding in [encoder.submit(images(4), 4) for _ in range(batches)]:
                encoding.result()
