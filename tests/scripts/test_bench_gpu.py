"""`make bench-gpu` where there is no GPU: it says so, and its parts run on the CPU."""

import json
import sys
from pathlib import Path

import pytest
import torch
from fixtures_store import Done, cold
from PIL import Image
from support import ROOT, encoded, import_path, picture, write_tar
from tokenizing.accelerators import PEAKS, peak_of
from tokenizing.gpu import SearchWork, encoder_flops
from tokenizing.stages import STAGES, milliseconds_by_stage
from tokenizing.vqgan import random_vqgan
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.layouts.cuts import cut_named
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.records import Normalization

pytest_plugins = ["fixtures_store"]


def bench(*arguments: str | Path) -> Done:
    script = ROOT / "scripts" / "benchmarks" / "bench_gpu.py"
    return cold(sys.executable, script, *arguments, environment={"PYTHONPATH": import_path(ROOT)}, timeout_s=880)


@pytest.fixture
def guest() -> NetworkTokenizer:
    model = random_vqgan(vocab_size=64, channels=32)
    return NetworkTokenizer(model, cut_named("quadrants"), Normalization(), {"weights": "none"})


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so() -> None:
    done = bench()
    assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert done.err.startswith("no CUDA device here: nothing was measured")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_script_runs_on_a_cpu(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{n}.jpg": encoded(Image.fromarray(picture(40, 50)), "JPEG") for n in range(3)})
    page, out = tmp_path / "page.md", tmp_path / "out"
    done = bench(
        *("--device", "cpu", "--quick", "--peak-tflops", "1"),
        *("--source", tmp_path / "a.tar", "--out", out, "--markdown", page),
    )
    assert done.status == 0, done.err
    assert page.read_text().startswith("# Benchmarks\n\n<!-- gpu -->\n## On a GPU\n")
    rows = {line.split("|")[1].strip(): line for line in done.out.splitlines() if line[:1] == "|"}
    assert "–" not in rows["encoding alone, compiled, images/s"]
    assert rows.keys() > {"vqtok, torchvision, images/s", "encoding alone, FLOP utilisation", *STAGES}
    assert {file.name for file in out.iterdir()} == {
        f"{model}.{kind}" for model in ("SimpleVQVAE", "Vqgan") for kind in ("png", "trace.json.gz")
    }
    with Image.open(out / "Vqgan.png") as image:
        assert len(image.getcolors() or []) > 1


def test_stages_are_told_apart(guest: NetworkTokenizer, tmp_path: Path) -> None:
    batches = [torch.zeros(2, 3, 32, 32, dtype=torch.uint8)] * 3
    trace = tmp_path / "trace.json"
    spent = milliseconds_by_stage(guest, guest.model.quantize, torch.device("cpu"), batches, trace)
    assert list(spent) == list(STAGES) and all(milliseconds > 0 for milliseconds in spent.values())
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert names > set(STAGES)
    assert "search" not in vars(guest.model.quantize)


def test_flops_are_those_of_a_run(guest: NetworkTokenizer) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        guest.model.encoder(torch.zeros(1, 3, 32, 32))
    assert encoder_flops(guest.model.encoder, 32) == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_gpus_are_known_by_their_names(name: str, entry: str) -> None:
    assert peak_of(name) == PEAKS[entry]


def test_a_gpu_that_is_not_in_the_table_is_not_guessed() -> None:
    assert peak_of("NVIDIA GeForce RTX 4080") is None


def test_the_search_is_bound_by_products_or_by_memory() -> None:
    peak = PEAKS["A100"]
    assert SearchWork(1000, 1000, 195).least_seconds(peak) == pytest.approx(2 * 195e6 / 52e12)
    assert SearchWork(1000, 1000, 195).least_seconds(PEAKS["RTX 4090"]) == pytest.approx(2 * 195e6 / 82.6e12)
    assert SearchWork(1_000_000, 2, 8).least_seconds(peak) == pytest.approx((32 * 1_000_002 + 8e6) / 1555e9)
