"""The manifests for Kubernetes against its published schemas, and the Dockerfile as far as that goes without Docker.

KubeRay publishes its schema for Go alone. Of the RayJob its pods are checked as pods, and the names of its own fields
against those that are listed here, of `ray.io/v1`.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from docs.checking import command_problems
from support import ROOT

from pipeline.cli import main

CLUSTER = ROOT / "scripts/cluster"
VERSIONS = ["1.31", "1.34", "1.37"]
"""Of Kubernetes. `backoffLimitPerIndex` needs 1.29."""

SPEC = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
CLUSTER_SPEC = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}
WORKER_SPEC = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def manifest(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def validate(tree: Any, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    validator.validate(tree, version, strict=True)


def templates() -> dict[str, Any]:
    cluster = manifest("rayjob.yaml")["spec"]["rayClusterSpec"]
    return {
        "job": manifest("job.yaml")["spec"]["template"],
        "head": cluster["headGroupSpec"]["template"],
        "worker": cluster["workerGroupSpecs"][0]["template"],
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_the_job_is_valid(version: str) -> None:
    validate(manifest("job.yaml"), version)


def test_an_invalid_job_would_be_noticed() -> None:
    tree = manifest("job.yaml")
    tree["spec"]["template"]["spec"]["restart"] = "Never"
    with pytest.raises(Exception, match="restart"):
        validate(tree, VERSIONS[-1])


@pytest.mark.parametrize("name", templates())
def test_the_pods_are_valid(name: str) -> None:
    validate(
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "vqtok"}, "template": templates()[name]},
        VERSIONS[-1],
    )


def test_the_ray_job_has_only_known_fields() -> None:
    tree = manifest("rayjob.yaml")
    assert (tree["apiVersion"], tree["kind"]) == ("ray.io/v1", "RayJob")
    assert set(tree["spec"]) <= SPEC
    cluster = tree["spec"]["rayClusterSpec"]
    assert set(cluster) <= CLUSTER_SPEC
    assert set(cluster["headGroupSpec"]) <= {"rayStartParams", "template"}
    [workers] = cluster["workerGroupSpecs"]
    assert set(workers) <= WORKER_SPEC
    assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())


@pytest.mark.parametrize("name", templates())
def test_pods_run_without_root(name: str) -> None:
    context = templates()[name]["spec"]["securityContext"]
    assert context["runAsNonRoot"]
    assert f"USER {context['runAsUser']}" in (CLUSTER / "Dockerfile").read_text()


def test_the_numbers_of_a_manifest_agree() -> None:
    job = manifest("job.yaml")["spec"]
    environment = {item["name"]: item for item in job["template"]["spec"]["containers"][0]["env"]}
    assert job["completions"] == job["parallelism"] == int(environment["WORLD_SIZE"]["value"])
    spec = manifest("rayjob.yaml")["spec"]
    words = shlex.split(spec["entrypoint"])
    [workers] = spec["rayClusterSpec"]["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert int(words[words.index("--workers") + 1]) == workers["maxReplicas"]
    assert words[words.index("--cpus") + 1] == limits["cpu"]
    assert words[words.index("--gpus") + 1] == str(limits["nvidia.com/gpu"])


def test_commands_are_such_as_vqtok_takes() -> None:
    for command in (manifest("rayjob.yaml")["spec"]["entrypoint"], shlex.join(containers("job")[0]["command"])):
        assert command_problems(command) == []
        done = CliRunner().invoke(main, shlex.split(command)[1:])
        assert "no such configuration file" in done.output or "/config/my.yaml" in str(done.exception)


def containers(name: str) -> Any:
    return templates()[name]["spec"]["containers"]


def test_ray_is_of_the_locked_version() -> None:
    locked = re.search(r"^ray==(\S+)", (ROOT / "scripts/requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert manifest("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]


def test_the_dockerfile_copies_what_is_there_and_its_builder_gets_that() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    copied = [word for words in re.findall(r"^COPY (.*)", text, re.MULTILINE) for word in words.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    sent = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in sent if line.startswith("!")) == sorted(copied)
    hooks = re.findall(r'^path = "(\S+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert all(Path(hook).as_posix() in copied for hook in hooks)
