"""The command line is the dataclass, and the fingerprint is what changes pixels."""

from dataclasses import dataclass
from typing import Literal

import pytest

from pipeline.console.options import UsageError, make_parser, option, parse
from pipeline.records.fingerprint import fingerprint_digest
from pipeline.restoration.config import RestoreConfig, fingerprint

PLACES = {"input": "in", "output": "out"}


def test_every_field_is_an_option_with_help_and_default():
    text = make_parser(RestoreConfig, "").format_help()
    assert "(default: ddim)" in text
    for name in ("--start-step", "--eta", "--unit-images", "--mlflow-uri", "--dry-run"):
        assert name in text


def test_arguments_become_typed_fields():
    argv = ["--input", "a", "--output", "b", "--eta", "0.25", "--start-step", "200", "--aligned"]
    config = parse(RestoreConfig, argv, "")
    assert (config.method.eta, config.method.start_step, config.input.aligned, config.method.seed) == (
        0.25,
        200,
        True,
        0,
    )


def test_an_option_that_may_be_given_several_times_is_a_tuple():
    argv = ["--input", "a", "--output", "b"]
    assert parse(RestoreConfig, argv, "").input.exclude == ()
    given = parse(RestoreConfig, [*argv, "--exclude", "lost+found", "--exclude", "a, b/*"], "")
    assert given.input.exclude == ("lost+found", "a, b/*")
    # the next command line begins anew
    assert parse(RestoreConfig, argv, "").input.exclude == ()


@dataclass(frozen=True)
class Words:
    """Two fields by place and one by name."""

    deed: Literal["look", "take"] = option("look", help="what to do", positional=True)
    things: tuple[str, ...] = option((), help="with what", positional=True)
    to: str | None = option(None, help="where to")


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], Words()),
        (["take"], Words("take")),
        (["take", "a", "b", "--to", "x"], Words("take", ("a", "b"), "x")),
        (["take", "--to", "x", "a", "b"], Words("take", ("a", "b"), "x")),
        (["--to", "x", "take", "a"], Words("take", ("a",), "x")),
    ],
)
def test_fields_by_place_stand_before_or_after_options(argv, wanted):
    assert parse(Words, argv, "") == wanted


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"eta": 1.5}, r"--eta must lie in \[0, 1\], got 1.5"),
        ({"unit_images": -1}, r"--unit-images must lie in 0..4096, got -1"),
        ({"max_faces": 0}, "--max-faces must be at least 1, got 0"),
        ({"strength": 2.0}, r"--strength must lie in \[0, 1\], got 2.0"),
        ({"seed": -1}, "--seed must not be negative, got -1"),
        ({"slots": "0"}, "--slots must be auto or a number above 0, got 0"),
        ({"slots": "many"}, "--slots must be auto or a number above 0, got many"),
        ({"start_step": -4}, "--start-step must not be negative, got -4"),
        ({"hold": -0.5}, "--hold must not be negative, got -0.5"),
        ({"hold": 1.0, "task": "colourise"}, "--hold is for --task restore, got 1.0"),
        ({"keep_detail": 0.5}, "--keep-detail is for --paste crop, got 0.5"),
        ({"exclude": ("a", "")}, r"--exclude must not be empty, got \('a', ''\)"),
        ({"calls": 0}, "--calls must be at least 1, got 0"),
        ({"tags": "a=b,c"}, "--tags must be NAME=VALUE, separated by commas, got a=b,c"),
    ],
)
def test_impossible_values_are_named(wrong, sentence):
    with pytest.raises(UsageError, match=sentence):
        RestoreConfig.of(**PLACES, **wrong)


def test_wrong_arguments_exit_with_2_and_one_sentence(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(RestoreConfig, ["--input", "a", "--output", "b", "--eta", "7"], "")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: --eta must lie in [0, 1], got 7.0\n"


def test_only_what_changes_pixels_is_in_the_fingerprint():
    def digest(**options):
        return fingerprint_digest(fingerprint(RestoreConfig.of(**PLACES, **options), {"weights": "x"}))

    assert digest() == digest(
        slots="9", engines=4, mlflow_uri="http://x", tags="a=b", strict=True, readers=3, device="cpu"
    )
    assert len({digest(), digest(seed=1), digest(min_face=20), digest(detector="retinaface-mobile0.25")}) == 4


def test_without_a_name_the_preset_is_that_of_the_task():
    assert RestoreConfig.of(**PLACES).preset_name == "portrait"
    assert RestoreConfig.of(**PLACES, task="inpaint", mask="alpha").preset_name == "portrait-inpaint"
    assert RestoreConfig.of(**PLACES, task="colourise").preset_name == "portrait-colour"
    # which shows more of an aligned picture
    aligned = {"task": "colourise", "aligned": True}
    assert RestoreConfig.of(**PLACES, **aligned).preset_name == "small-swinir"
    assert RestoreConfig.of(**PLACES, **aligned, alignment="preset").preset_name == "portrait-colour"
    assert RestoreConfig.of(**PLACES, task="colourise", preset="mine.toml").preset_name == "mine.toml"


def test_a_start_step_that_is_no_number_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(RestoreConfig, ["--input", "a", "--output", "b", "--start-step", "auto:160"], "")
    assert stopped.value.code == 2 and "invalid int value: 'auto:160'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["hold", "calls", "start_step", "eta"])
def test_an_estimator_alone_takes_no_option_of_the_chain_not_even_a_zero(name):
    value = {"hold": 0.0, "calls": 1, "start_step": 0, "eta": 0.0}[name]
    shown = f"leave --{name.replace('_', '-')} {value} out"
    with pytest.raises(UsageError, match=shown):
        RestoreConfig.of(**PLACES, method="estimator", **{name: value})
