"""The command line is the dataclass, and the fingerprint is what changes pixels."""

from dataclasses import dataclass
from typing import Literal

import pytest

from pipeline.config import (
    RestoreConfig,
    UsageError,
    fingerprint,
    fingerprint_digest,
    make_parser,
    option,
    parse,
)

PLACES = {"input": "in", "output": "out"}


def test_every_field_is_an_option_with_help_and_default():
    text = make_parser(RestoreConfig, "").format_help()
    for name in ("--start-step", "--eta", "--unit-images", "--mlflow-uri", "--dry-run"):
        assert name in text
    assert "(default: small-swinir)" in text


def test_arguments_become_typed_fields():
    argv = ["--input", "a", "--output", "b", "--eta", "0.25", "--start-step", "200", "--aligned"]
    config = parse(RestoreConfig, argv, "")
    assert (config.eta, config.start_step, config.aligned, config.seed) == (0.25, "200", True, 0)


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
        ({"unit_images": 0}, r"--unit-images must lie in 1..4096, got 0"),
        ({"max_faces": 0}, "--max-faces must be at least 1, got 0"),
        ({"strength": 2.0}, r"--strength must lie in \[0, 1\], got 2.0"),
        ({"seed": -1}, "--seed must not be negative, got -1"),
        ({"slots": "0"}, "--slots must be auto or a number above 0, got 0"),
        ({"slots": "many"}, "--slots must be auto or a number above 0, got many"),
        (
            {"start_step": "4oo"},
            "--start-step must be a number, auto, or auto and a number as auto:160, got 4oo",
        ),
        ({"start_bounds": "80"}, "--start-bounds must be two numbers as 80,240, got 80"),
        ({"calls": 0}, "--calls must be at least 1, got 0"),
        ({"tags": "a=b,c"}, "--tags must be NAME=VALUE, separated by commas, got a=b,c"),
    ],
)
def test_impossible_values_are_named(wrong, sentence):
    with pytest.raises(UsageError, match=sentence):
        RestoreConfig(**PLACES, **wrong)


def test_wrong_arguments_exit_with_2_and_one_sentence(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(RestoreConfig, ["--input", "a", "--output", "b", "--eta", "7"], "")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: --eta must lie in [0, 1], got 7.0\n"


def test_only_what_changes_pixels_is_in_the_fingerprint():
    def digest(**options):
        return fingerprint_digest(fingerprint(RestoreConfig(**PLACES, **options), {"weights": "x"}))

    assert digest() == digest(
        slots="9", engines=4, mlflow_uri="http://x", tags="a=b", strict=True, readers=3, device="cpu"
    )
    assert len({digest(), digest(seed=1), digest(min_face=20), digest(detector="retinaface-mobile0.25")}) == 4
