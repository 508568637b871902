"""Results of `bench_tokenize.py` as Markdown."""

from collections.abc import Callable, Sequence
from functools import partial

from pages import machine, percent, table, three_digits, times

from tokenizing.agreement import Agreement
from tokenizing.roofline import ProductRates
from tokenizing.sides import (
    DECODE,
    DECODE_LIMIT,
    DTYPES,
    FOLDER,
    PARQUET,
    PEERS,
    PRECISIONS,
    VIEWS,
    Effort,
    SideResult,
    cores_name,
    encode_name,
    job_name,
)

VERSIONS = ("torch", "torchvision", "pillow", "webdataset", "zarr")

HOW = """`{command}`, on {machine}.

The same photographs for all, {photographs}, to tokens of an untrained `SimpleVQVAE(1024, 64, 128)`. All take turns in
one process, forwards and backwards, and the best of at most {rounds} turns counts, after one that does not. vqtok is
its own job (`pipeline.jobs.tokenizing.job.run`), from the first claim to the last commit: reading, decoding, encoding,
writing and fsync are in it, imports and loading the model are not; every store was complete, with a row for each
photograph. The others use the same weights as people do: PIL, torchvision's transforms, the model as it is built, the
whole matrix of distances; each with one thread or all of them, whichever suits it. Their clock runs from opening the
first tar to the last file written; worker processes have started before. All run with `OMP_WAIT_POLICY=passive`, and
with freed memory kept for the next batch, as `vqtok` does it.
"""

BOUNDS = """Decoding and encoding alone are vqtok's own parts with nothing beside them; on shared cores they allow
1/(1/d + 1/e) together. Decoding's limit is torchvision's `decode_jpeg`, resize and crop of files in memory, in as many
threads. The roofline is the matrix products of encoder and search at the rates at which torch multiplied such matrices,
small enough for the cache, in the same run, at best {fp32} GFLOP/s in float32 and {bf16} in bfloat16: nothing that
computes them could be faster here, so that the roofline to one of the others is the most that vqtok could be to it."""

OTHER_WAYS_IN = """Jobs in float32 over the same JPEG files, in a folder and in Parquet as Hugging Face writes it, to
the job over tars; and a job that makes the tokens of each image and of its mirror. It decodes an image once: decoding
once and encoding twice bounds it."""

AGREEMENT = """The plain path is one contiguous float32 batch whose vectors are searched in float64; a tie is a token
whose two codes are equally near as far as sums in float32 can tell."""


def report(results: Sequence[SideResult], rates: ProductRates, effort: Effort, photographs: str, command: str) -> str:
    """The whole section, `## Tokenizing`."""
    rounds, where = effort.rounds, machine(VERSIONS)
    parts = [
        "## Tokenizing",
        HOW.format(command=command, machine=where, photographs=photographs, rounds=rounds).strip(),
    ]
    for result in results:
        parts += [f"### {result.side} px, {result.images:,} photographs of {result.tokens:,} tokens", _rates(result)]
    peaks = {name: three_digits(rates.flops_per_second(dtype) / 1e9) for name, dtype in DTYPES.items()}
    parts += ["### What bounds it", BOUNDS.format(**peaks), _bounds(results, rates)]
    parts += ["### From other containers, and with views", OTHER_WAYS_IN, _other_ways_in(results)]
    parts += ["### The same tokens", AGREEMENT, _agreements(results)]
    return "\n\n".join(parts) + "\n"


def _rates(result: SideResult) -> str:
    ours = [job_name(precision) for precision in PRECISIONS]
    lines = [["", "images/s", "tokens/s", *(f"{name}, to it" for name in ours)]]
    for name in [*ours, *PEERS]:
        rate = result.rates[name]
        factors = [times(result.rates[each] / rate) for each in ours]
        lines.append([name, three_digits(rate), three_digits(rate * result.tokens), *factors])
    return table(lines)


def _bounds(results: Sequence[SideResult], rates: ProductRates) -> str:
    lines = [["", *(f"{result.side} px" for result in results)]]

    def add(title: str, show: Callable[[float], str], value: Callable[[SideResult], float]) -> None:
        lines.append([title, *(show(value(result)) for result in results)])

    add("MFLOP an image", three_digits, lambda each: each.flops / 1e6)
    add(f"{DECODE}, images/s", three_digits, lambda each: each.rates[DECODE])
    add(f"{DECODE}, of its limit", percent, lambda each: each.rates[DECODE] / each.rates[DECODE_LIMIT])
    for precision in PRECISIONS:
        encode, job = encode_name(precision), job_name(precision)
        for name in (encode, job):
            add(f"{name}, images/s", three_digits, partial(_rate_of, name))
            add(f"{name}, of the roofline", percent, partial(_share_of_roofline, rates, name, precision))
        add(f"{job}, of what both allow", percent, partial(_share_of_bound, job, precision))
        add(f"roofline, {precision}, images/s", three_digits, partial(_roofline, rates, precision))
        for peer in PEERS:
            add(f"roofline, {precision}, to {peer}", times, partial(_roofline_to, rates, precision, peer))
    one, two = cores_name(1), cores_name(2)
    if all(two in result.rates for result in results):
        add(f"{one}, images/s", three_digits, lambda each: each.rates[one])
        add(f"{two}, to that", times, lambda each: each.rates[two] / each.rates[one])
    return table(lines)


def _other_ways_in(results: Sequence[SideResult]) -> str:
    tars = job_name("fp32")
    lines = [["", *(f"{result.side} px" for result in results)]]
    for name in (FOLDER, PARQUET):
        lines.append([f"{name}, images/s", *(three_digits(result.rates[name]) for result in results)])
        lines.append([f"{name}, to tars", *(times(result.rates[name] / result.rates[tars]) for result in results)])
    lines.append([f"{VIEWS}, images/s", *(three_digits(result.rates[VIEWS]) for result in results)])
    shares = (result.rates[VIEWS] / result.bound("fp32", views=2) for result in results)
    lines.append([f"{VIEWS}, of what both allow", *map(percent, shares)])
    return table(lines)


def _rate_of(name: str, result: SideResult) -> float:
    return result.rates[name]


def _roofline(rates: ProductRates, precision: str, result: SideResult) -> float:
    return rates.images_per_second(result.products[precision])


def _roofline_to(rates: ProductRates, precision: str, name: str, result: SideResult) -> float:
    return _roofline(rates, precision, result) / result.rates[name]


def _share_of_roofline(rates: ProductRates, name: str, precision: str, result: SideResult) -> float:
    return result.rates[name] / _roofline(rates, precision, result)


def _share_of_bound(name: str, precision: str, result: SideResult) -> float:
    return result.rates[name] / result.bound(precision)


def _agreements(results: Sequence[SideResult]) -> str:
    lines = [["equal tokens", *(f"{result.side} px" for result in results)]]
    lines.append(["fp32 and the plain path", *(_with_ties(result.plain) for result in results)])
    lines.append(["bf16 and fp32", *(f"{percent(result.bf16.share)}" for result in results)])
    return table(lines)


def _with_ties(agreement: Agreement) -> str:
    if not agreement.different:
        return f"all of {agreement.tokens:,}"
    return f"{percent(agreement.share)}; {agreement.different:,} differ, {agreement.ties:,} of them ties"
