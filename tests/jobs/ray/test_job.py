"""`vqtok ray` on a cluster of this machine, and what is killed there."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_cluster import claimed_by
from fixtures_ray import Driver, Nodes, assert_all_ended, children_of, new_cluster
from fixtures_s3 import S3
from fixtures_store import COLLECTION, Job, cold, make_job, wait_for
from support import free_port

from pipeline.files import files_at
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_cluster", "fixtures_ray", "fixtures_s3"]
pytestmark = pytest.mark.timeout(600)


def test_more_tasks_than_nodes_end_as_one_process_does(ray_cluster: Nodes, job: Job, finished: Job) -> None:
    ray_cluster.just(1)
    done = ray_cluster.start(job, "--workers", "2").wait()
    assert done.status == 0, done.err
    assert f"{len(COLLECTION)} of {len(COLLECTION)} source shards are committed" in done.out
    assert "2 tasks of 1 CPU core each; the Ray cluster has room for 1 at once" in done.err
    assert job.digest == finished.digest
    assert_all_ended(job)
    assert list(job.store.glob("probe-*")) == []


def test_a_cluster_without_the_gpu_that_is_asked_for_is_refused(ray_cluster: Nodes, job: Job) -> None:
    ray_cluster.just(1)
    done = ray_cluster.start(job, "--gpus", "1").wait()
    assert (done.status, done.out) == (2, "")
    assert "no node of the Ray cluster has 4 CPU cores and 1 GPU for a task (--cpus, --gpus)" in done.err
    assert "Traceback" not in done.err
    assert not job.store.exists()


def test_a_finished_job_needs_no_cluster(finished: Job) -> None:
    pytest.importorskip("ray")
    done = Driver(finished, "--address", "127.0.0.1:1").wait()
    assert (done.status, done.err) == (0, "")
    assert "nothing to do" in done.out


def test_without_ray_one_line_says_what_to_install(job: Job) -> None:
    code = "import sys; sys.modules['ray'] = None; from pipeline.cli import main; main()"
    done = cold(sys.executable, "-c", code, "ray", "--config", job.file)
    assert (done.status, done.out) == (2, "")
    assert "pip install 'vqtok[ray]'" in done.err
    assert "Traceback" not in done.err


def at_work(job: Job, commits: int) -> tuple[int, int]:
    """A process that holds a claim once so many source shards are committed, and the worker that started it."""
    found: list[tuple[int, int]] = []

    def look() -> bool:
        if len(job.listing("commits")) >= commits:
            children, claimed = children_of(job), claimed_by(job)
            found.extend((child, worker) for child, worker in children.items() if child in claimed)
        return bool(found)

    wait_for(look, 120)
    return found[0]


def assert_whole(driver: Driver, job: Job, digest: str) -> None:
    """The driver ends well: nothing of its job is lost, and no process of it left."""
    done = driver.wait(400)
    assert done.status == 0, done.err
    assert job.digest == digest
    assert_all_ended(job)


def kill_child(cluster: Nodes, child: int, worker: int) -> None:
    os.kill(child, signal.SIGKILL)


def kill_worker(cluster: Nodes, child: int, worker: int) -> None:
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{child}").exists(), 30)


def stop_worker(cluster: Nodes, child: int, worker: int) -> None:
    os.kill(worker, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{child}").exists(), 30)


def kill_node(cluster: Nodes, child: int, worker: int) -> None:
    raylet = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    [node] = [node for node in cluster.nodes if raylet in pids_of(node)]
    cluster.kill(node)
    wait_for(lambda: not Path(f"/proc/{child}").exists(), 60)


def add_node(cluster: Nodes, child: int, worker: int) -> None:
    cluster.add()


def pids_of(node: Any) -> set[int]:
    return {info.process.pid for infos in node.all_processes.values() for info in infos}


@pytest.mark.slow
@pytest.mark.parametrize("happens", [kill_child, kill_worker, stop_worker, kill_node, add_node])
def test_whatever_happens_in_the_middle_nothing_is_lost(
    ray_cluster: Nodes, long_job: Job, long_digest: str, happens: Callable[[Nodes, int, int], None]
) -> None:
    ray_cluster.just(1 if happens is add_node else 2)
    driver = ray_cluster.start(long_job, "--workers", "3")
    child, worker = at_work(long_job, commits=3)
    happens(ray_cluster, child, worker)
    assert_whole(driver, long_job, long_digest)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_driver_that_ends_leaves_no_process_and_the_same_command_goes_on(
    ray_cluster: Nodes, long_job: Job, long_digest: str, name: str
) -> None:
    ray_cluster.just(2)
    driver = ray_cluster.start(long_job, "--workers", "4")
    at_work(long_job, commits=2)
    driver.process.send_signal(getattr(signal, name))
    done = driver.wait()
    assert done.status == {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[name], done.err
    wait_for(lambda: not children_of(long_job), 60)
    if name != "SIGKILL":
        assert long_job.listing("claims") == []
        assert list(long_job.store.glob("probe-*")) == []
    assert_whole(ray_cluster.start(long_job), long_job, long_digest)


@pytest.mark.slow
def test_a_head_that_is_killed_leaves_no_process_and_another_cluster_goes_on(long_job: Job, long_digest: str) -> None:
    soon = {"RAY_gcs_rpc_server_reconnect_timeout_s": "2"}  # a minute by default, in which nodes go on without a head
    with new_cluster(soon) as cluster:
        cluster.just(1)
        driver = cluster.start(long_job, "--workers", "2", **soon)
        at_work(long_job, commits=2)
        cluster.kill_head()
        done = driver.wait(300)
        assert done.status not in (0, 2), done.err
        wait_for(lambda: not children_of(long_job), 120)
    with new_cluster() as another:
        another.just(1)
        assert_whole(another.start(long_job), long_job, long_digest)


@pytest.mark.slow
def test_a_driver_outside_the_cluster(job: Job, finished: Job) -> None:
    port = int(free_port())
    with new_cluster(ray_client_server_port=port) as cluster:
        cluster.just(1)
        driver = Driver(job, "--address", f"ray://127.0.0.1:{port}", "--workers", "2")
        assert_whole(driver, job, finished.digest)


@pytest.mark.slow
def test_two_drivers_at_once_share_the_work(ray_cluster: Nodes, long_job: Job, long_digest: str) -> None:
    ray_cluster.just(2)
    drivers = [ray_cluster.start(long_job, "--workers", "2") for _ in range(2)]
    endings = [driver.wait(400) for driver in drivers]
    assert [done.status for done in endings] == [0, 0], endings
    assert long_job.digest == long_digest
    assert_all_ended(long_job)


@pytest.mark.slow
def test_source_and_store_in_an_object_store(
    ray_cluster: Nodes, s3: S3, bucket_url: str, collection: Path, tokenizer_folder: Path, finished: Job, tmp_path: Path
) -> None:
    source = files_at(f"{bucket_url}/source")
    for path in COLLECTION:
        source.put(path, (collection / path).read_bytes())
    shards = {"source.shards": [f"{source.root}/{path}" for path in COLLECTION], "source.base": source.root}
    job = make_job(tmp_path / "job", collection, tokenizer_folder, {**shards, "tokenize.store": f"{bucket_url}/store"})
    ray_cluster.just(0)
    ray_cluster.just(2)  # nodes begin with the environment of this process, which names the server
    done = ray_cluster.start(job).wait(400)
    assert done.status == 0, done.err
    store = TokenStore(f"{bucket_url}/store")
    assert store.content_digest == finished.digest
    wait_for(lambda: not children_of(job), 60)
    assert files_at(f"{bucket_url}/store").names("claims") == []


@pytest.mark.slow
def test_a_source_shard_that_fails_is_told_with_its_log(
    ray_cluster: Nodes, copied: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", copied, tokenizer_folder)
    with (copied / "train-0001.tar").open("r+b") as file:
        file.truncate(700)
    ray_cluster.just(1)
    done = ray_cluster.start(job).wait()
    assert (done.status, "are committed" in done.out) == (1, False)  # Ray tells of killed nodes there
    assert "task 0 on " in done.err
    assert "train-0001.tar stays pending" in done.err
    log = Path(done.err.partition("its log there: ")[2].split()[0])
    assert "train-0001.tar" in log.read_text()
