"""`make bench-tokenize` on a few photographs, and the proof that it notices work that was not done."""

import sys
import time
from pathlib import Path

import pytest
import torch
from fixtures_store import Done, cold
from pages import percent, three_digits, times, write_section
from PIL import Image
from support import ROOT, encoded, import_path, picture, write_tar
from tokenizing.agreement import compare, compare_with_plain
from tokenizing.job import Incomplete, Job, save_random_model, write_config
from tokenizing.parts import Decode, DecodeLimit, Encode
from tokenizing.peers import OneByOne, Peer, WebDatasetLoop
from tokenizing.photos import Photos, read_photographs, write_photos
from tokenizing.plain import plain_tokens
from tokenizing.processes import Shift, rate_of
from tokenizing.roofline import ProductRates, encoder_products, search_product
from tokenizing.turns import best_of
from tokenizing.vqgan import random_vqgan
from torch.utils.flop_counter import FlopCounterMode

from pipeline.errors import SourceError
from pipeline.models.networks.vqvae import SimpleVQVAE
from pipeline.models.tokenizers.registry import load_tokenizer

pytest_plugins = ["fixtures_store"]

SIDE, IMAGES = 16, 12
CPU = torch.device("cpu")


def jpeg(height: int, width: int) -> bytes:
    return encoded(Image.fromarray(picture(height, width)), "JPEG")


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return write_photos(tmp_path / "photos", [jpeg(20, 30), jpeg(40, 18)], IMAGES)


@pytest.fixture
def model() -> SimpleVQVAE:
    torch.manual_seed(0)
    return SimpleVQVAE(32, 8, 8).eval()


@pytest.fixture
def job(tmp_path: Path, photos: Photos) -> Job:
    tokenizer = save_random_model(tmp_path / "tokenizer", 32, 8, 8)
    return Job(write_config(tmp_path / "job.yaml", photos.pattern, tokenizer, SIDE, batch_size=4), photos)


def bench(*arguments: str | Path) -> Done:
    script = ROOT / "scripts" / "benchmarks" / "bench_tokenize.py"
    return cold(sys.executable, script, *arguments, environment={"PYTHONPATH": import_path(ROOT)}, timeout_s=280)


@pytest.mark.slow
def test_the_script_measures_and_writes_its_section(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{n}.jpg": jpeg(40 + n, 50) for n in range(5)})
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n\nabove\n\n<!-- tokenize -->\nold\n<!-- /tokenize -->\n\nbelow\n")
    done = bench("--quick", "--source", tmp_path / "*.tar", "--markdown", page)
    assert done.status == 0, done.err
    text = page.read_text()
    assert text.startswith("# Benchmarks\n\nabove\n\n<!-- tokenize -->\n## Tokenizing\n") and "\nold\n" not in text
    assert text.endswith("<!-- /tokenize -->\n\nbelow\n")
    assert "### 32 px, 32 photographs of 64 tokens" in text
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in text.splitlines() if line[:1] == "|"}
    for name in (
        "vqtok, fp32",
        "vqtok, bf16",
        "one by one, a .npy each",
        "webdataset, batches",
        "DataLoader, 2 workers",
    ):
        assert float(rows[name].replace(",", "")) > 0, text
    assert rows["decoding alone, of its limit"].endswith("%")
    for name in ("from a folder, to tars", "from Parquet, to tars"):
        assert rows[f"vqtok, fp32, {name}"].endswith("×")
    assert rows["vqtok, fp32, each image and its mirror, of what both allow"].endswith("%")
    assert rows["fp32 and the plain path"].startswith(("all of 2,048", "99."))


@pytest.mark.slow
def test_growth_is_measured() -> None:
    done = bench("--growth", "tiny")
    assert done.status == 0, done.err
    assert done.out.startswith("## Growth\n")
    first = [line.split("|")[1].strip() for line in done.out.splitlines() if line.startswith("| ")]
    assert [cell for cell in first if cell.strip("-")] == [
        *("codes, 64 px", "16", "64"),
        *("pixels a side, 1,024 codes", "32", "64"),
        *("samples", "1,000", "2,000"),
    ]


@pytest.mark.slow
def test_a_source_without_photographs_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.png": encoded(Image.new("RGB", (8, 8)), "PNG")})
    done = bench("--quick", "--source", tmp_path / "a.tar")
    assert (done.status, done.out) == (1, "")
    assert "a.tar: no JPEG file in there" in done.err


def test_photographs_come_again_where_there_are_too_few(photos: Photos) -> None:
    assert len(photos) == IMAGES and len(set(photos.files)) == 2
    assert read_photographs([photos.pattern]) == list(photos.files)


def test_pictures_of_other_formats_are_left_out(tmp_path: Path) -> None:
    png = encoded(Image.new("RGB", (8, 8)), "PNG")
    tar = write_tar(tmp_path / "a.tar", {"0.png": png, "1.jpg": jpeg(8, 8)})
    assert read_photographs([str(tar)]) == [jpeg(8, 8)]
    write_tar(tar, {"0.png": png})
    with pytest.raises(SourceError, match="no JPEG file"):
        read_photographs([str(tar)])


def test_a_job_that_leaves_a_photograph_out_does_not_count(job: Job, photos: Photos) -> None:
    assert job() > 0 and job() > 0
    photos.tars[1].unlink()
    with pytest.raises(Incomplete, match="9 rows, not 12"):
        job()


@pytest.mark.parametrize("peer", [OneByOne, WebDatasetLoop])
def test_a_peer_that_leaves_a_photograph_out_does_not_count(
    peer: type[Peer], photos: Photos, model: SimpleVQVAE, tmp_path: Path
) -> None:
    contestant = peer(photos, model, SIDE, tmp_path / "tokens")
    assert contestant() > 0
    write_tar(photos.tars[1], {"0000003.jpg": photos.files[3]})
    with pytest.raises(Incomplete, match="160 tokens, not 12 × 16"):
        contestant()


def test_decoding_that_leaves_a_photograph_out_does_not_count(job: Job, photos: Photos) -> None:
    decode = Decode(job.config, photos, 2)
    assert decode() > 0
    assert DecodeLimit(photos, SIDE, 2)() > 0
    write_tar(photos.tars[1], {"0000003.jpg": photos.files[3], "0000004.jpg": b"\xff\xd8 damaged"})
    with pytest.raises(Incomplete, match="10 of 12 photographs decoded"):
        decode()


def test_encoding_takes_the_batches_again_and_again(job: Job) -> None:
    tokenizer = load_tokenizer(job.config.tokenizer.path, "raster")
    calls = []
    encode = tokenizer.encode
    tokenizer.encode = lambda pixels: calls.append(len(pixels)) or encode(pixels)  # type: ignore[method-assign,func-returns-value]
    assert Encode(tokenizer, CPU, 2, [torch.zeros(4, 3, SIDE, SIDE, dtype=torch.uint8)], 12)() > 0
    assert sum(calls) == 12


def test_turns_go_forwards_and_backwards_and_the_first_does_not_count() -> None:
    rates = {"a": iter([9.0, 1.0, 3.0]), "b": iter([9.0, 5.0, 4.0])}
    order = []

    def contestant(name: str) -> float:
        order.append(name)
        return next(rates[name])

    best = best_of({name: lambda name=name: contestant(name) for name in rates}, 2, lambda _: None)  # type: ignore[misc]
    assert best == {"a": 3.0, "b": 5.0}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_processes_count_from_the_first_start_to_the_last_end() -> None:
    assert rate_of([Shift(10, 12, 6), Shift(11, 14, 6)]) == 3.0


@pytest.mark.parametrize("residual_blocks", [0, 2])
def test_the_products_of_the_layers_are_what_torch_counts(residual_blocks: int) -> None:
    model = SimpleVQVAE(32, 8, 8, residual_blocks=residual_blocks)
    with FlopCounterMode(display=False) as counter:
        z_BChw = model.encoder(torch.zeros(1, 3, 16, 24))
        z_BChw.flatten(2)[0].T @ model.quantize.embedding.weight.T
    products = [*encoder_products(model.encoder, (16, 24)), search_product(24, (32, 8))]
    assert sum(product.flops for product in products) == counter.get_total_flops()


def test_the_roofline_is_the_time_of_all_products() -> None:
    products = encoder_products(SimpleVQVAE(32, 8, 8).encoder, (16, 16))
    rates = ProductRates([torch.float32], cores=1)
    best = rates.measure(products)
    assert best == rates.flops_per_second(torch.float32) > 0
    one = [rates.images_per_second({product: torch.float32}) for product in products]
    both = rates.images_per_second(dict.fromkeys(products, torch.float32))
    assert both == pytest.approx(1 / sum(1 / rate for rate in one))
    assert both < min(one)
    assert max(rate * product.flops for rate, product in zip(one, products, strict=True)) == pytest.approx(best)


def test_other_tokens_are_found_and_ties_are_told_from_them(model: SimpleVQVAE) -> None:
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        codes = model.quantize.embedding.weight
        codes[5] = codes[9] = 0.1 * torch.ones(8)
    tokens = plain_tokens(model, pixels)
    assert compare_with_plain(tokens, model, pixels).different == 0

    twin = tokens.clone()
    twin[tokens == 5] = 9
    found = compare_with_plain(twin, model, pixels)
    assert found.different == found.ties == int((tokens == 5).sum()) > 0

    other = tokens.clone()
    other[0, 0] = 31 if int(tokens[0, 0]) != 31 else 30
    found = compare_with_plain(other, model, pixels)
    assert (found.tokens, found.different, found.ties) == (32, 1, 0)
    assert compare(other, tokens).share == 31 / 32


def test_the_large_tokenizer_has_about_70_million_parameters() -> None:
    with torch.device("meta"):
        model = random_vqgan()
    assert 70e6 < sum(weight.numel() for weight in model.parameters()) < 75e6


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (three_digits(1_234_567), "1,230,000"),
        (three_digits(0.012345), "0.0123"),
        (times(12.345), "12.3×"),
        (times(0.98765), "0.99×"),
        (percent(0.5), "50.0 %"),
        (percent(0.99996), "99.996 %"),  # not 100.0 %
        (percent(1), "100.0 %"),
        (percent(1.0123), "101.2 %"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_count(shown: str, expected: str) -> None:
    assert shown == expected


def test_sections_of_a_page_do_not_disturb_each_other(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_section(page, "one", "## One\n")
    write_section(page, "two", "## Two\n")
    write_section(page, "one", r"## One \1 again" + "\n")
    assert page.read_text() == (
        "# Benchmarks\n\n<!-- one -->\n## One \\1 again\n<!-- /one -->\n\n<!-- two -->\n## Two\n<!-- /two -->\n"
    )


def test_rounds_are_left_out_where_the_time_is_over() -> None:
    said: list[str] = []
    turns: list[float] = []

    def contestant() -> float:
        turns.append(time.monotonic())
        time.sleep(0.02)
        return float(len(turns))

    assert best_of({"a": contestant}, 50, said.append, 0.0) == {"a": 2.0}  # one that does not count, one that does
    assert said[-1] == "  1 of 50 rounds: the time is over"
    turns.clear()
    best_of({"a": contestant}, 50, said.append, 0.3)
    assert 2 <= len(turns) <= 16
