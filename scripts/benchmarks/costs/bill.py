"""What a job costs of an object store: requests for each source shard, for each worker, and each second. Pure but for
`bill`, which prints it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import click

from costs.requests import KINDS

PRICES = {"GET": 0.4e-6, "HEAD": 0.4e-6, "LIST": 5e-6, "PUT": 5e-6, "DELETE": 0.0}
"""US dollars a request, of S3 Standard in us-east-1 (2026)."""
LIMITS = {"GET": 5500, "HEAD": 5500, "LIST": 5500, "PUT": 3500, "DELETE": 3500}
"""Requests a second that S3 promises below one prefix before it has split it; those of one line share the limit."""
PAGE = 1000
"""Names in one answer to a listing."""
BEATS = (2.0, 1.5, 10.0)
"""Of a claim: seconds to the first heartbeat, by how much each pause is longer than the one before, and the longest
pause, a sixth of `tokenize.claim_timeout`. Each writes the claim anew."""

# Of `bench_costs.py requests`, `vqtok tokenize` in one process over 48 source shards of one image on S3, without the
# GET of each commit at the end.
MEASURED = {"GET": 1.0, "HEAD": 2.0, "LIST": 0.1, "PUT": 12.0, "DELETE": 1.0}
# Of the same: a worker's requests when it begins and ends, of any kind, taken for GETs.
MEASURED_START = 20.0


@dataclass(frozen=True)
class Bill:
    """Requests of a whole job."""

    shards: int
    workers: int
    seconds: float
    """Of work at one source shard."""
    each: Mapping[str, float]
    """Requests for each source shard, by kind."""
    start: float
    """Requests of each worker when it begins and ends, without listings."""
    looks: float = 3.0
    """Times that a worker lists all commits: when it begins, where it often came too late, at its end."""

    @property
    def duration(self) -> float:
        """Seconds of the whole job."""
        return self.shards * self.seconds / self.workers

    def rows(self) -> dict[str, Counter[str]]:
        """Requests by kind of what causes them."""
        pages = -(-self.shards // PAGE)
        beats = self.shards * beats_within(self.seconds)
        return {
            "source shards": Counter({kind: self.each[kind] * self.shards for kind in KINDS}),
            "heartbeats": Counter({"PUT": float(beats)}),
            # The source is listed once; of the commits half are there on average.
            "workers begin, look and end": Counter(
                {"GET": self.start * self.workers, "LIST": self.workers * pages * (1 + self.looks / 2)}
            ),
            "the manifest": Counter({"GET": float(self.shards), "LIST": float(pages), "PUT": 1.0}),
        }

    def dollars(self, row: Mapping[str, float]) -> float:
        """What requests cost."""
        return sum(PRICES[kind] * count for kind, count in row.items())

    @property
    def per_second(self) -> dict[str, float]:
        """Requests a second by kind, on average over the job without its manifest, which is made behind it."""
        total: Counter[str] = Counter()
        for name, row in self.rows().items():
            if name != "the manifest":
                total.update(row)
        return {kind: total[kind] / self.duration for kind in KINDS}

    @property
    def most_workers(self) -> float:
        """With how many the first limit of a single prefix would be reached, by what grows with them."""
        reads, writes = (
            sum(self.per_second[kind] for kind in kinds) for kinds in (("GET", "HEAD", "LIST"), ("PUT", "DELETE"))
        )
        return self.workers * min(LIMITS["GET"] / reads, LIMITS["PUT"] / writes)


@click.command("bill")
@click.option("--shards", default=1_000_000, show_default=True, help="Source shards.")
@click.option("--workers", default=1000, show_default=True)
@click.option("--seconds", default=60.0, show_default=True, help="Of work at one source shard.")
@click.option(
    "--each",
    default=" ".join(f"{kind}={count}" for kind, count in MEASURED.items()),
    show_default=True,
    help="Requests for each source shard, as `bench_costs.py requests` counts them.",
)
@click.option("--start", default=MEASURED_START, show_default=True, help="Requests of each worker, at both its ends.")
def bill(shards: int, workers: int, seconds: float, each: str, start: float) -> None:
    """Requests, dollars and requests a second of a job over S3: a formula, filled in."""
    counts = dict.fromkeys(KINDS, 0.0) | {kind: float(count) for kind, count in (w.split("=") for w in each.split())}
    made = Bill(shards, workers, seconds, counts, start)
    print(f"{shards:,} source shards of {seconds:g} s, {workers:,} workers: {made.duration / 3600:,.1f} h\n")
    print(f"| requests, millions | {' | '.join(KINDS)} | dollars |")
    print(f"| --- |{' ---: |' * (len(KINDS) + 1)}")
    for name, row in made.rows().items():
        print(f"| {name} | {' | '.join(_cell(row[kind] / 1e6) for kind in KINDS)} | {made.dollars(row):,.0f} |")
    total = sum(map(made.dollars, made.rows().values()))
    rates = " | ".join(f"{made.per_second[kind]:,.0f}" for kind in KINDS)
    print(f"| all, requests a second | {rates} | {total:,.0f} |")
    print(f"\nthe limit of one prefix would be reached with {made.most_workers:,.0f} workers")


def beats_within(seconds: float) -> int:
    pause, growth, longest = BEATS
    beats = 0
    while pause <= seconds:
        seconds, beats, pause = seconds - pause, beats + 1, min(growth * pause, longest)
    return beats


def _cell(millions: float) -> str:
    return f"{millions:,.1f}" if millions >= 0.05 else "0" if not millions else f"{millions:.3f}"
