"""A policy file says what is kept, repaired and dropped; an invalid one is refused in one sentence."""

import ast
from pathlib import Path

import pytest

from jobs.clean import parse_clean
from pipeline.cleaning.gates import version_gates
from pipeline.cleaning.plan import make_plan
from pipeline.cleaning.policy import REASONS, Policy, read_policy
from pipeline.console.commands import BUSY, GATE_BROKEN
from pipeline.console.options import UsageError

PLACES = ["--input", "in", "--output", "out"]


def written(folder: Path, text: str) -> str:
    path = folder / "policy.toml"
    path.write_text(text)
    return str(path)


def test_thresholds_of_the_file_are_defaults_and_options_win(tmp_path):
    policy = written(
        tmp_path,
        'min_side = 80\nmax_aspect = 2\n[actions]\nno_face = "keep"\n'
        '[restore]\npreset = "small-srcnn"\neta = 0.0\nmin_face = 20.0\n',
    )
    config, extra = parse_clean([*PLACES, "--policy", policy, "--max-aspect", "4"])
    assert (config.min_side, config.max_aspect, config.min_face) == (80, 4, 24)
    assert (config.action("no_face"), config.action("blurred"), config.action("too_dark")) == (
        "keep", "repair", "drop",
    )  # fmt: skip
    plan = make_plan(config, extra)
    assert (plan.preset.name, plan.restore.method.eta, plan.restore.faces.min_face) == (
        "small-srcnn",
        0.0,
        20.0,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_sid = 80", "min_sid is unknown"),
        ('min_side = "large"', "min_side must be a number, got 'large'"),
        ("min_side = true", "min_side must be a number"),
        ("min_side = 1.5", "min_side must be a number"),
        ("min_side =", "is not valid TOML"),
        ("actions = 3", "actions must be a table"),
        ('[actions]\nugly = "drop"', "has no known reason"),
        ('[actions]\nno_face = "repair"', "no_face cannot be repaired"),
        ('[actions]\nunreadable = "keep"', "unreadable cannot be kept"),
        ('[actions]\nno_face = "burn"', "=drop, =keep or =repair, got"),
        ("[restore]\noutput = 'x'", "[restore] output is unknown"),
        ("[restore]\nsolver = 'magic'", "[restore] solver must be one of ddim, dpm++"),
        ("[restore]\neta = 'high'", "[restore] eta must be of type float"),
    ],
)
def test_what_is_no_policy_is_refused_by_name(tmp_path, text, said):
    with pytest.raises(UsageError) as refusal:
        read_policy(written(tmp_path, text))
    assert said in str(refusal.value)


@pytest.mark.parametrize("wrong", [{"max_aspect": 0.5}, {"near_distance": 9}, {"min_entropy": 9}])
def test_thresholds_out_of_range_are_refused_with_their_option(wrong):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong)).replace('_', '-')} must"):
        Policy(**wrong)


def test_only_what_changes_a_verdict_or_a_pixel_changes_the_settings():
    def settings(*options: str) -> str:
        return make_plan(*parse_clean([*PLACES, "--preset", "small-srcnn", *options])).settings

    assert settings() == settings("--engines", "3", "--fail-if", "drop>0.5", "--experiment", "other")
    assert (
        len({settings(), settings("--min-side", "65"), settings("--calls", "4"), settings("--no-repair")})
        == 4
    )


@pytest.mark.parametrize("text", ["no_face", "no_face=1", "ugly>0.1", "no_face>1.2.3", "new.>1"])
def test_a_gate_that_means_nothing_is_refused(text):
    with pytest.raises(UsageError, match="--fail-if"):
        version_gates(text)


def test_every_reason_can_be_a_gate():
    assert len(version_gates(",".join(f"new.{reason}>=0.5" for reason in REASONS))) == len(REASONS)


def test_the_airflow_example_asks_for_what_the_job_knows():
    example = Path(__file__).parents[2] / "cluster" / "airflow_clean.py"
    values = {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(example.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
        for target in node.targets
    }
    assert values["COMMAND"][:3] == ["python", "-m", "jobs.clean"]
    config, _ = parse_clean(values["COMMAND"][3:])
    assert len(version_gates(config.fail_if)) == 2
    codes = next(line for line in example.read_text().splitlines() if line.startswith("GATE_BROKEN"))
    assert codes == f"GATE_BROKEN, BUSY = {GATE_BROKEN}, {BUSY}"
