"""`deploy/kuberay/` without a cluster: Kubernetes' own schema, the list of KubeRay's fields, and what must hold."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kuberay"
FIELDS = yaml.safe_load(Path(__file__).with_name("kuberay_fields.yaml").read_text(encoding="utf-8"))
KUBERNETES = "1.34"
NAME = {"app.kubernetes.io/name": "ubt-sweeper"}


def documents(file: str) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all((FOLDER / file).read_text(encoding="utf-8")) if found]


SHARED = documents("shared.yaml")
CLUSTER, JOB = documents("cluster.yaml")[0], documents("job.yaml")[0]
SPEC = CLUSTER["spec"]
HEAD, WORKERS = SPEC["headGroupSpec"], SPEC["workerGroupSpecs"]
TEMPLATES = [HEAD["template"], *(group["template"] for group in WORKERS)]


def of_shared(kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in SHARED if found["kind"] == kind}


def check_fields(document: dict[str, Any]) -> None:
    kind = document["kind"]
    jsonschema.Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": FIELDS["$defs"]}).validate(document)


def check_core(document: dict[str, Any]) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def pods() -> Iterator[dict[str, Any]]:
    """Yield the pods of the cluster; and one with what the operator puts into its autoscaler's container."""
    for number, template in enumerate(TEMPLATES):
        metadata = {"name": f"pod-{number}", **template["metadata"]}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    autoscaler = {key: SPEC["autoscalerOptions"][key] for key in ("resources", "securityContext")}
    containers = [{"name": "autoscaler", "image": "image", **autoscaler}]
    yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "autoscaler"}, "spec": {"containers": containers}}


@pytest.mark.parametrize("document", SHARED, ids=[f"{d['kind']} {d['metadata']['name']}" for d in SHARED])
def test_kubernetes_accepts_what_cluster_and_job_share(document: dict[str, Any]) -> None:
    check_core(document)


@pytest.mark.parametrize("pod", list(pods()), ids=lambda pod: pod["metadata"]["name"])
def test_kubernetes_accepts_the_pods(pod: dict[str, Any]) -> None:
    check_core(pod)


@pytest.mark.parametrize("document", [CLUSTER, JOB], ids=["cluster", "job"])
def test_kuberay_has_the_fields_that_are_used(document: dict[str, Any]) -> None:
    check_fields(document)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["spec"].update(shutdownAfterJobFinish=True),
        lambda job: job["spec"].update(activeDeadlineSeconds=0),
        lambda job: job["spec"]["rayClusterSpec"]["autoscalerOptions"].update(upscalingMode="Slow"),
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(mode="tokens"),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    ],
    ids=["typo", "no time", "no such mode", "no such authentication", "no upper bound", "number for a string"],
)
def test_the_list_of_fields_finds_mistakes(spoil: Any) -> None:
    job = copy.deepcopy(JOB)
    spoil(job)
    with pytest.raises(jsonschema.ValidationError):
        check_fields(job)


def test_kubernetes_own_schema_finds_mistakes() -> None:
    import kubernetes_validate

    pod = copy.deepcopy(next(pods()))
    pod["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check_core(pod)


def test_a_job_makes_the_cluster_that_stays_otherwise() -> None:
    assert JOB["spec"]["rayClusterSpec"] == SPEC


def test_everything_that_is_named_is_there() -> None:
    for template in TEMPLATES:
        spec = template["spec"]
        assert spec["serviceAccountName"] in of_shared("ServiceAccount")
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"] if len(volume) == 2
                  and "persistentVolumeClaim" in volume]  # fmt: skip
        assert set(claims) == set(of_shared("PersistentVolumeClaim"))
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
            for source in container["envFrom"]:
                known = source.get("configMapRef", {}).get("name") in of_shared("ConfigMap")
                assert known or source["secretRef"].get("optional")
    assert SPEC["authOptions"]["secretName"] in (FOLDER / "shared.yaml").read_text()


def test_every_node_has_the_same_image_and_the_ray_that_is_installed_in_it() -> None:
    images = {container["image"] for template in TEMPLATES for container in template["spec"]["containers"]}
    assert images == {"REPLACE-WITH-IMAGE"}
    for lock in ("requirements.lock", "requirements-cuda12.lock"):
        assert f"\nray=={SPEC['rayVersion']} " in (ROOT / lock).read_text(encoding="utf-8")


def test_clients_have_to_show_a_token() -> None:
    assert SPEC["authOptions"]["mode"] == "token"


def test_only_pods_of_the_cluster_reach_more_than_its_job_server() -> None:
    policy = of_shared("NetworkPolicy")["ubt"]["spec"]
    assert policy["podSelector"]["matchLabels"] == NAME
    own, others = policy["ingress"]
    assert own["from"] == [{"podSelector": {"matchLabels": NAME}}]
    assert [port["port"] for port in others["ports"]] == [8265]


def test_the_head_runs_no_trials_and_stays_while_there_is_a_sweep() -> None:
    assert HEAD["rayStartParams"]["num-cpus"] == "0"
    selected = of_shared("PodDisruptionBudget")["ubt-head"]["spec"]["selector"]["matchLabels"]
    assert selected.items() <= HEAD["template"]["metadata"]["labels"].items()
    for group in WORKERS:
        assert not selected.items() <= group["template"]["metadata"]["labels"].items()
    assert HEAD["template"]["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def test_workers_cost_nothing_while_there_is_no_sweep_and_are_bounded() -> None:
    assert SPEC["enableInTreeAutoscaling"]
    for group in WORKERS:
        assert (group["replicas"], group["minReplicas"]) == (0, 0)
        assert group["maxReplicas"] <= 8
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_a_job_ends_with_its_cluster_and_within_a_time() -> None:
    assert JOB["spec"]["shutdownAfterJobFinishes"]
    assert 0 < JOB["spec"]["ttlSecondsAfterFinished"] <= 600
    assert JOB["spec"]["activeDeadlineSeconds"] > 0


def test_a_job_s_command_is_one_that_ubt_understands_and_survives_the_operator_s_own_shell() -> None:
    entrypoint = JOB["spec"]["entrypoint"]
    assert not re.search(r"[;&|<>$`'\"\\(){}*?\n]", entrypoint)
    from sweeps.cli.app import app

    program, command, *words = shlex.split(entrypoint)
    assert program == "ubt"
    context = typer.main.get_command(app).commands[command].make_context(command, words)
    assert (context.params["address"], context.params["resume_auto"]) == ("auto", True)
    assert str(context.params["out"]).startswith("/shared/")


def test_nothing_runs_as_root_or_may_become_it() -> None:
    contexts = [SPEC["autoscalerOptions"]["securityContext"]]
    contexts += [container["securityContext"] for pod in TEMPLATES for container in pod["spec"]["containers"]]
    for context in contexts:
        assert context["runAsNonRoot"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
    for template in TEMPLATES:
        assert template["spec"]["securityContext"]["runAsUser"] == 1000  # deploy/Dockerfile's


def test_workers_have_no_rights_in_kubernetes() -> None:
    assert of_shared("ServiceAccount")["ubt-worker"]["automountServiceAccountToken"] is False
    for group in WORKERS:
        assert group["template"]["spec"]["automountServiceAccountToken"] is False
        assert group["template"]["spec"]["serviceAccountName"] == "ubt-worker"


def test_shared_memory_is_memory_and_fits_the_pod_with_ray_s_object_store() -> None:
    for group in (HEAD, *WORKERS):
        spec = group["template"]["spec"]
        volume = next(volume for volume in spec["volumes"] if volume["name"] == "shm")
        assert volume["emptyDir"]["medium"] == "Memory"
        mount = next(mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "shm")
        assert mount["mountPath"] == "/dev/shm"
        limit = bytes_of(spec["containers"][0]["resources"]["limits"]["memory"])
        assert (
            int(group["rayStartParams"]["object-store-memory"]) < bytes_of(volume["emptyDir"]["sizeLimit"]) < limit / 4
        )


def test_decoded_images_have_a_folder_on_the_node_with_the_room_that_was_asked_for() -> None:
    settings = of_shared("ConfigMap")["ubt-settings"]["data"]
    for template in TEMPLATES:
        spec = template["spec"]
        mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounts["cache"] == settings["UBT_CACHE"]
        assert settings["UBT_STORE"].startswith((mounts["shared"], "s3://"))
        volume = next(volume for volume in spec["volumes"] if volume["name"] == "cache")
        asked = spec["containers"][0]["resources"]["requests"]["ephemeral-storage"]
        assert bytes_of(volume["emptyDir"]["sizeLimit"]) <= bytes_of(asked)
    # The `paper` study: 500,000 pairs and ImageNet's 50,000 images, each 224 × 224 × 3 bytes.
    workers = WORKERS[0]["template"]["spec"]["volumes"]
    limit = next(volume for volume in workers if volume["name"] == "cache")["emptyDir"]["sizeLimit"]
    assert bytes_of(limit) > 550_000 * 224 * 224 * 3


def bytes_of(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([GM]i)", quantity).groups()
    return int(number) * {"Gi": 2**30, "Mi": 2**20}[unit]
