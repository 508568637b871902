"""`vqtok ray`."""

import sys

import click

from pipeline.cli.options import Finite, allowances, config_arguments, with_config
from pipeline.config import Config


@click.command()
@with_config
@click.option(
    "--address",
    default="auto",
    show_default=True,
    metavar="auto|local|HOST:PORT|ray://HOST:PORT",
    help="The cluster; auto: the one that RAY_ADDRESS names or that runs here, local: one of this machine alone.",
)
@click.option(
    "--workers",
    "-n",
    type=click.IntRange(1),
    metavar="N",
    help="Tasks, each a process; as many as the cluster has room for unless told otherwise. More of them wait.",
)
@click.option(
    "--gpus",
    type=Finite(0, 1),
    metavar="G",
    help="GPUs of each task, 0.5 for two tasks on one; 1 where a node has any, else 0.",
)
@click.option(
    "--cpus", type=Finite(0, min_open=True), metavar="C", help="CPU cores of each task; 4 with a GPU, else 1."
)
@click.option(
    "--wait-for-nodes",
    "wait_for_nodes_s",
    type=Finite(0),
    default=0.0,
    metavar="SECONDS",
    help="How long to wait for the first node that has room for a task, where an autoscaler brings nodes.",
)
@click.option("--no-progress", is_flag=True, help="Do not show how far the job is.")
@allowances
def ray(
    config: Config,
    address: str,
    workers: int | None,
    gpus: float | None,
    cpus: float | None,
    wait_for_nodes_s: float,
    **options: bool,
) -> None:
    """Tokenize on a Ray cluster: vqtok tokenize as tasks of Ray.

    Run it again to resume, also beside processes that were started in another way. Ray starts tasks again whose
    process or node was lost.
    """
    from pipeline.jobs.ray import job
    from pipeline.jobs.ray.cluster import Request

    options |= {"no_wait": False}
    request = Request(address, workers, gpus, cpus, wait_for_nodes_s)
    sys.exit(job.run(config, config_arguments(), request, options))
