"""What surrounds the code: declared and pinned packages, the wheel, make, the command line, the cluster files."""

import ast
import json
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree, ignore_patterns

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs import cli
from pipeline.cleaning.options import CleanConfig
from pipeline.console.options import make_parser
from pipeline.ledger.watch import StatusConfig
from pipeline.models.options import ModelsConfig
from pipeline.restoration.config import RestoreConfig
from pipeline.verify.verification import VerifyConfig

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Installed only by those whose use its packages' licences allow, and so neither here nor pinned.
RESTRICTED = "extra-networks"


def requirements(*texts: str) -> list[Requirement]:
    return [Requirement(text) for text in texts]


def constraints() -> dict[str, str]:
    """Distribution → exact version."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    assert len(pinned) == len(lines), "a distribution is pinned twice"
    return {canonicalize_name(name): version for name, version in pinned.items()}


def declared(*without: str) -> list[Requirement]:
    """The packages of the project and of its extras but these."""
    extras = (text for extra, texts in EXTRAS.items() if extra not in without for text in texts)
    return requirements(*PROJECT["dependencies"], *extras)


# ---------------------------------------------------------------------------------------------- packages


@pytest.mark.parametrize("wanted", declared(RESTRICTED), ids=str)
def test_each_declared_package_is_pinned_inside_its_range(wanted):
    assert constraints()[canonicalize_name(wanted.name)] in wanted.specifier


def test_the_pinned_packages_agree_with_each_other():
    pinned = constraints()
    asked = [
        (name, requirement)
        for name in pinned
        for requirement in requirements(*(metadata.requires(name) or []))
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    assert len(asked) > 100
    assert [
        f"{name} wants {requirement}, pinned is {pinned[canonicalize_name(requirement.name)]}"
        for name, requirement in asked
        if canonicalize_name(requirement.name) in pinned
        and pinned[canonicalize_name(requirement.name)] not in requirement.specifier
    ] == []


def test_these_tests_run_with_the_pinned_versions():
    assert {name: metadata.version(name) for name in constraints()} == constraints()


def test_every_imported_package_is_declared():
    known = {canonicalize_name(r.name) for r in declared()}
    # dlib-bin's own list of what it provides leaves dlib out; torch's CUDA builds bring Triton, others have none
    providers = {**metadata.packages_distributions(), "dlib": ["dlib-bin"], "triton": ["torch"]}
    imported = {
        (name.partition(".")[0], file.relative_to(ROOT).as_posix())
        for package in ("pipeline", "jobs")
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    foreign = {i for i in imported if i[0] not in sys.stdlib_module_names | {"pipeline", "jobs"}}
    assert {
        (name, file)
        for name, file in foreign
        if not known & {canonicalize_name(distribution) for distribution in providers.get(name, [name])}
    } == set()


def test_the_wheel_carries_code_presets_and_weights(tmp_path):
    source = tmp_path / "source"
    for package in ("pipeline", "jobs"):
        copytree(ROOT / package, source / package, ignore=ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=source, check=True, capture_output=True, timeout=60
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        file.relative_to(ROOT).as_posix()
        for package in ("pipeline", "jobs")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert any(name.endswith(".toml") for name in ours)
    assert ours - packed == set()
    assert {
        name for name in packed if not name.startswith(("pipeline/", "jobs/", "difface_pipeline-"))
    } == set()


# ---------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("target", ["setup", "demo", "test", "check", "bench", "help"])
def test_make_has_the_target_and_help_names_it(target):
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE)


@pytest.mark.parametrize("script", ["tools/make_venv.sh", ".ci/run"])
def test_shell_scripts_parse(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.parametrize("job", cli.JOBS)
def test_every_job_of_the_console_command_exists(job):
    assert find_spec(cli.JOBS[job].module) is not None


DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "Makefile",
    "cluster/README.md",
    "pipeline/presets/README.md",
    "pipeline/presets/MODEL_CARD.md",
    *sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_only_modules_files_and_options_that_exist(document):
    text = (ROOT / document).read_text()
    modules = set(re.findall(r"-m (jobs\.\w+)", text))
    assert {m for m in modules if find_spec(m) is None} == set()
    links = {link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)}
    assert {link for link in links if not (ROOT / document).parent.joinpath(link).exists()} == set()
    configs = {
        "clean": CleanConfig,
        "restore": RestoreConfig,
        "status": StatusConfig,
        "verify": VerifyConfig,
        "models": ModelsConfig,
    }
    for job, config in configs.items():
        known = {option for action in make_parser(config, "")._actions for option in action.option_strings}
        assert {option for command in commands(text, job) for option in command} - known == set()


def commands(text: str, job: str) -> list[list[str]]:
    """The options of every command in the text that starts this job."""
    joined = text.replace("\\\n", " ")
    found = re.findall(rf"(?:-m jobs\.{job}|difface {job})\b([^\n`#]*)", joined)
    return [re.findall(r"--[a-z][a-z-]*", rest) for rest in found]


# ---------------------------------------------------------------------------------------------- cluster


@pytest.mark.parametrize("name", ["ray-cluster.yaml", "ray-cluster-aws.yaml"])
def test_ray_accepts_the_cluster_file(name):
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    config = yaml.safe_load((CLUSTER / name).read_text())
    jsonschema.validate(config, schema)
    validate_config(prepare_config(config))


def compose() -> dict:
    return yaml.safe_load((CLUSTER / "compose.yaml").read_text())


def test_compose_uses_only_what_it_declares():
    services = compose()["services"]
    assert {"s3", "mlflow", "postgres"} <= set(services)
    volumes = {v.partition(":")[0] for s in services.values() for v in s.get("volumes", [])}
    assert volumes == set(compose()["volumes"])
    assert {needed for s in services.values() for needed in s.get("depends_on", {})} <= set(services)
    for service in services.values():
        assert "healthcheck" in service
        if "build" in service:
            assert (CLUSTER / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_compose_holds_no_secret_and_the_example_names_them_all():
    text = (CLUSTER / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{(\w+):\?", text))
    optional = set(re.findall(r"\$\{(\w+):-", text))
    example = dict(
        line.split("=", 1)
        for line in (CLUSTER / "env.example").read_text().splitlines()
        if "=" in line and line[0] != "#"
    )
    assert wanted == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD"}
    assert wanted | optional == set(example)
    assert {example[name] for name in wanted} == {""}


def test_the_s3_server_of_compose_knows_every_option_it_is_given():
    program = Path(sysconfig.get_path("scripts")) / "weed"
    command, *options = compose()["services"]["s3"]["command"]
    shown = subprocess.run(
        [program, "help", command], capture_output=True, text=True, timeout=30, check=False
    )
    known = set(re.findall(r"^  (-[\w.]+)", shown.stdout + shown.stderr, re.MULTILINE))
    assert {option.partition("=")[0] for option in options} <= known


def test_the_mlflow_server_of_compose_knows_every_option_it_is_given():
    from mlflow.cli import cli as mlflow_cli

    program, command, *options = compose()["services"]["mlflow"]["command"]
    assert program == "mlflow"
    known = {name for parameter in mlflow_cli.commands[command].params for name in parameter.opts}
    assert {option.partition("=")[0] for option in options} <= known


@pytest.mark.parametrize("name", ["Dockerfile", "mlflow.Dockerfile"])
def test_the_linter_has_nothing_against_an_image(name):
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    said = subprocess.run([program, CLUSTER / name], capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize("name", ["Dockerfile", "mlflow.Dockerfile"])
def test_images_copy_only_what_exists_and_is_sent(name):
    sent = [
        line[1:]
        for line in (CLUSTER / f"{name}.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [
        source
        for line in (CLUSTER / name).read_text().splitlines()
        if line.startswith("COPY ")
        for source in shlex.split(line)[1:-1]
    ]
    assert sorted(copied) == sorted(sent)
    assert all((ROOT / source).exists() for source in copied)
