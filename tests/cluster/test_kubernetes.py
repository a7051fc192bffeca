"""The manifests for Kubernetes: valid by its own schemas and KubeRay's fields, and what they name exists."""

import importlib
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline.console.options import parse
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.flow import PUBLISHER_CPUS, READER_CPUS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster" / "kubernetes"
KUBERNETES = "1.34"
SCHEMA = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text())
FILES = sorted(file.name for file in FOLDER.glob("*.yaml"))
OF_KUBERAY = ["raycluster.yaml", "restore-rayjob.yaml", "clean-raycronjob.yaml"]
Manifest = dict[str, Any]


def manifests(*names: str) -> list[Manifest]:
    """Every resource of these files, or of all."""
    texts = [(FOLDER / name).read_text() for name in names or FILES]
    return [manifest for text in texts for manifest in yaml.safe_load_all(text)]


def walk(value: object) -> Iterator[dict[str, Any]]:
    """Every mapping in the value."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(part)


def pod_templates(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        part["template"]
        for part in walk(manifest)
        if "containers" in part.get("template", {}).get("spec", {})
    ]


def cluster(name: str) -> dict[str, Any]:
    (manifest,) = manifests(name)
    (spec,) = [part for part in walk(manifest) if "headGroupSpec" in part]
    return spec


def is_kubernetes_own(manifest: Manifest) -> bool:
    return not manifest["apiVersion"].startswith(("ray.io/", "kustomize."))


def wrong(manifest: Manifest) -> str:
    """What Kubernetes' schemas, or KubeRay's fields, have against the manifest; empty when nothing."""
    try:
        if is_kubernetes_own(manifest):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
            return ""
        jsonschema.validate(manifest, SCHEMA)
        for template in pod_templates(manifest):
            pod = {
                "apiVersion": "v1",
                "kind": "PodTemplate",
                "metadata": {"name": "pod"},
                "template": template,
            }
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", [name for name in FILES if name != "kustomization.yaml"])
def test_a_manifest_is_valid(name):
    assert [wrong(manifest) for manifest in manifests(name) if wrong(manifest)] == []


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("clean-cronjob.yaml", '"24"', "24"),
        ("clean-cronjob.yaml", "concurrencyPolicy", "concurrency"),
        ("raycluster.yaml", "maxReplicas: 3", "maxReplica: 3"),
        ("raycluster.yaml", 'num-cpus: "0"', "num-cpus: 0"),
        ("raycluster.yaml", "envFrom:", "envfrom:"),
        ("clean-raycronjob.yaml", "schedule: 30 2 * * *", "schedule: daily"),
    ],
)
def test_a_mistake_in_a_manifest_is_seen(name, before, after):
    text = (FOLDER / name).read_text()
    assert before in text
    assert wrong(yaml.safe_load(text.replace(before, after, 1)))


def test_every_job_brings_the_cluster_that_also_stays():
    assert cluster("restore-rayjob.yaml") == cluster("raycluster.yaml") == cluster("clean-raycronjob.yaml")


def test_the_kustomization_lists_all_that_stays_but_no_secret():
    (found,) = manifests("kustomization.yaml")
    jobs = {"restore-rayjob.yaml", "clean-raycronjob.yaml", "clean-cronjob.yaml"}
    assert set(found["resources"]) == set(FILES) - jobs - {"kustomization.yaml", "secrets.example.yaml"}


# ---------------------------------------------------------------------------------------------- what they name


def commands() -> dict[str, list[str]]:
    """What each job's manifest runs."""
    (restore,), (scheduled,), (submitted,) = (
        manifests(f"{n}.yaml") for n in ("restore-rayjob", "clean-raycronjob", "clean-cronjob")
    )
    (container,) = submitted["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return {
        "restore": shlex.split(restore["spec"]["entrypoint"]),
        "clean-raycronjob": shlex.split(scheduled["spec"]["jobTemplate"]["entrypoint"]),
        "clean-cronjob": container["args"],
    }


def test_the_restoration_takes_its_options():
    python, dash_m, module, *options = commands()["restore"]
    assert (python, dash_m, module) == ("python", "-m", "jobs.restore")
    machine = parse(RestoreConfig, options, description="").machine
    assert (machine.device, machine.engines > 0, machine.readers > 0) == ("cuda", True, True)


def test_both_cleanings_are_the_same_and_take_their_options():
    assert commands()["clean-raycronjob"] == commands()["clean-cronjob"]
    python, dash_m, module, *options = commands()["clean-cronjob"]
    assert (python, dash_m, module) == ("python", "-m", "jobs.clean")
    config, _ = importlib.import_module("jobs.clean").parse_clean(options)
    assert (config.device, config.engines > 0, config.readers > 0) == ("cuda", True, True)


@pytest.mark.parametrize("name", ["restore", "clean-raycronjob", "clean-cronjob"])
def test_the_machines_carry_what_the_stages_of_a_job_ask_for(name):
    words = commands()[name]
    engines, readers = (int(words[words.index(option) + 1]) for option in ("--engines", "--readers"))
    groups = cluster("raycluster.yaml")["workerGroupSpecs"]
    most = {
        kind: sum(int(g["rayStartParams"].get(kind, 0)) * g["maxReplicas"] for g in groups)
        for kind in ("num-cpus", "num-gpus")
    }
    assert most["num-gpus"] == engines
    assert most["num-cpus"] >= engines + readers * READER_CPUS + engines * 2 * PUBLISHER_CPUS


def test_what_ray_is_told_of_a_machine_is_what_the_pod_asks_for():
    spec = cluster("raycluster.yaml")
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        asked = container["resources"]["requests"]
        assert group["rayStartParams"]["num-cpus"] == asked["cpu"]
        assert group["rayStartParams"].get("num-gpus") == asked.get("nvidia.com/gpu")
        assert group["minReplicas"] == 0
        assert any("spot" in toleration["key"] for toleration in group["template"]["spec"]["tolerations"])
    assert "tolerations" not in spec["headGroupSpec"]["template"]["spec"]


def test_ray_start_knows_what_it_is_told():
    from ray.scripts.scripts import start

    known = {option.lstrip("-") for parameter in start.params for option in parameter.opts}
    told = [part["rayStartParams"] for part in walk(cluster("raycluster.yaml")) if "rayStartParams" in part]
    assert len(told) == 3
    assert {option for params in told for option in params} - known == set()


def test_versions_and_images_are_those_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    compose = (ROOT / "cluster" / "compose.yaml").read_text()
    images = {part["image"] for manifest in manifests() for part in walk(manifest) if "image" in part}
    ours = {f"registry.example.com/difface-{name}:{version}" for name in ("pipeline", "mlflow")}
    assert ours < images
    assert all(f"image: {image}" in re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", compose) for image in images - ours)
    launchers = [(ROOT / "cluster" / f"ray-cluster{cloud}.yaml").read_text() for cloud in ("", "-aws")]
    assert all(yaml.safe_load(text)["docker"]["image"] in ours for text in launchers)
    assert cluster("raycluster.yaml")["rayVersion"] == metadata.version("ray")


def test_secrets_settings_and_volumes_that_are_referred_to_are_there():
    made: dict[str, dict[str, set[str]]] = {}
    for manifest in manifests():
        keys = set(manifest.get("stringData", {})) | set(manifest.get("data", {}))
        made.setdefault(manifest["kind"], {})[manifest.get("metadata", {}).get("name", "")] = keys
    for part in (part for manifest in manifests() for part in walk(manifest)):
        for reference, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if reference in part:
                assert part[reference]["key"] in made[kind][part[reference]["name"]]
        for reference, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            if reference in part:
                assert part[reference]["name"] in made[kind]
        if "persistentVolumeClaim" in part:
            assert part["persistentVolumeClaim"]["claimName"] in made["PersistentVolumeClaim"]
    assert "auth_token" in made["Secret"][cluster("raycluster.yaml")["authOptions"]["secretName"]]
    hosts = re.findall(
        r"(?:http://|@)([a-z0-9-]+):\d+", " ".join((FOLDER / name).read_text() for name in FILES)
    )
    services = set(made["Service"]) | {f"{name}-head-svc" for name in made["RayCluster"]}
    assert set(hosts) - {"localhost"} <= services


def test_a_service_leads_to_pods():
    labels = [template["metadata"].get("labels", {}) for m in manifests() for template in pod_templates(m)]
    services = [manifest for manifest in manifests() if manifest["kind"] == "Service"]
    assert services
    assert all(service["spec"]["selector"] in labels for service in services)


def test_the_example_holds_no_secret():
    assert {
        value for secret in manifests("secrets.example.yaml") for value in secret["stringData"].values()
    } == {""}


def test_the_settings_are_variables_that_the_code_or_its_libraries_read():
    (settings, *_) = manifests("settings.yaml")
    code = "".join(
        file.read_text() for folder in ("pipeline", "jobs") for file in (ROOT / folder).rglob("*.py")
    )
    of_botocore = {"AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"}
    assert {name for name in settings["data"] if name not in of_botocore and f'"{name}"' not in code} == set()


def test_the_mlflow_server_is_started_as_in_compose():
    def options(command: list[str]) -> set[str]:
        return {option.partition("=")[0] for option in command}

    (server,) = [m for m in manifests("mlflow.yaml") if m["kind"] == "Deployment"]
    (container,) = server["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((ROOT / "cluster" / "compose.yaml").read_text())
    assert options(container["command"]) == options(compose["services"]["mlflow"]["command"])


def test_no_pod_of_ours_runs_as_root_and_workers_have_the_images_user():
    for manifest in manifests():
        for template in pod_templates(manifest):
            spec = template["spec"]
            ours = any("registry.example.com" in container["image"] for container in spec["containers"])
            assert not ours or spec["securityContext"]["runAsNonRoot"]
            assert not ours or spec["securityContext"]["runAsUser"] == 1000
    for name in ("Dockerfile", "mlflow.Dockerfile"):
        assert "USER 1000:1000" in (ROOT / "cluster" / name).read_text()


def test_the_submission_of_a_night_is_a_script_that_bash_reads():
    (container,) = pod_templates(*manifests("clean-cronjob.yaml"))[0]["spec"]["containers"]
    bash, _, script, _ = container["command"]
    subprocess.run([bash, "-n"], input=script, text=True, check=True)
    said = {variable["name"] for variable in container["env"]}
    assert {name for name in re.findall(r"\$(\w+)", script)} <= said
