"""The fit of a prediction of a face's error, measured on photographs at the levels of the real-world grid."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict

from pipeline.console.commands import OK, say
from pipeline.console.options import UsageError
from pipeline.console.progress import Progress
from pipeline.datasets.faces import FaceAddress
from pipeline.evaluation.calibrate import CalibrateConfig, choose_photographs
from pipeline.evaluation.calibration import ESTIMATOR, LEFT, Candidate
from pipeline.evaluation.error_fit import (
    CROP,
    LEAST_PEOPLE,
    ErrorSample,
    Predictions,
    describe_predictions,
    draw_predictions,
    fit_damaged,
)
from pipeline.evaluation.error_trial import ErrorTrial
from pipeline.evaluation.error_worth import choose_treatments, describe_choices, describe_harm
from pipeline.io import store
from pipeline.networks.preset_text import table_lines
from pipeline.networks.presets import find_preset
from pipeline.records.fingerprint import fingerprint_digest

# Levels at which the angle to the true face grows most often.
HARMED = ("medium", "heavy")


def predict_error(config: CalibrateConfig) -> int:
    """Measure errors, fit their prediction, and write what it explains and whether it helps. Returns the exit code."""
    store.check_writable(config.output)
    samples = measure_errors(config, choose_photographs(config))
    if len({sample.person for sample in samples}) < LEAST_PEOPLE:
        raise UsageError(
            f"a fit wants faces of {LEAST_PEOPLE} people at least, got {len({s.person for s in samples})}; "
            "give more photographs by --faces or --limit"
        )
    others = (
        measure_errors(config.other_collection, choose_photographs(config.other_collection))
        if config.others
        else []
    )
    parts = []
    for stored, title in ((False, "enlarged"), (True, "as stored")):
        fitted = [sample for sample in samples if sample.stored == stored]
        found = Predictions.of(fitted)
        parts.append(describe_faces(title, found))
        if not stored:
            store.write_bytes(store.join(config.output, "error.png"), draw_predictions(found))
            parts += describe_worth(config, found)
        if other := [sample for sample in others if sample.stored == stored]:
            parts.append(describe_faces(f"other collection, {title}", Predictions.carried(fitted, other)))
    # without the measurements of the file, which may have been enlarged or coded again
    lines = table_lines("error", fit_damaged(samples, CROP).as_table)
    text = "\n".join(parts)
    store.write_bytes(store.join(config.output, "error.toml"), "\n".join([*lines[1:], ""]).encode())
    store.write_bytes(store.join(config.output, "error.md"), text.encode())
    print(text)
    return OK


def describe_faces(title: str, found: Predictions) -> str:
    """What is explained of the errors of some faces, under a heading."""
    people = len({sample.person for sample in found.samples})
    return f"## {title}: {len(found.samples)} faces of {people} people\n\n{describe_predictions(found)}"


def describe_worth(config: CalibrateConfig, found: Predictions) -> list[str]:
    """What treatments by the prediction deliver, and whether it predicts harm; nothing where none was tried."""
    if not config.treated or not any(sample.measured for sample in found.samples):
        return []
    choices = choose_treatments(found, find_preset(config.preset).treatment, config.each, config.bounds)
    return [
        f"## treatments\n\n{describe_choices(choices)}",
        f"## harm\n\n{describe_harm(choices, found, HARMED)}",
    ]


def errors_folder(config: CalibrateConfig) -> str:
    """Name of the folder of what was measured: named after what decides its numbers."""
    settings = {name: getattr(config, name) for name in ("faces", "preset", "seed")}
    return f"errors-{fingerprint_digest(settings)}"


def treatments_of(config: CalibrateConfig) -> tuple[Candidate, ...]:
    """What is tried with a face: the treatments of the preset's table. Raises UsageError where it has none."""
    rows = find_preset(config.preset).treatment
    if not rows:
        raise UsageError(
            f"preset {config.preset} has no [[treatment]] table to compare with; give --treated 0"
        )
    return tuple(dict.fromkeys((LEFT, ESTIMATOR, *map(Candidate.of_row, rows))))


def measure_errors(config: CalibrateConfig, faces: Sequence[tuple[int, FaceAddress]]) -> list[ErrorSample]:
    """Every photograph at every level; the first --treated of them by every treatment of the preset, too.

    Each leaves NUMBER.json in the folder; what is measured already is read again.
    """
    folder = store.join(config.output, errors_folder(config))
    candidates = treatments_of(config) if config.treated else ()
    wanted = [
        (n, face, candidates if place < config.treated else ()) for place, (n, face) in enumerate(faces)
    ]
    there = {entry.path for entry in store.list_files(folder)} if store.exists(folder) else set()
    pending = [
        one for one in wanted if f"{one[0]:06d}.json" not in there or not _has_all(folder, one[0], one[2])
    ]
    if pending:
        say(
            f"{len(faces)} photographs, {min(config.treated, len(faces))} of them by {len(candidates)} treatments"
        )
        trial = ErrorTrial(find_preset(config.preset), (), config.seed, config.weights_dir)
        with closing(trial), Progress(len(faces), len(faces) - len(pending)) as progress:
            for number, face, tried in pending:
                found = list(trial.errors(number, face, tried))
                store.write_bytes(_place(folder, number), json.dumps([asdict(s) for s in found]).encode())
                progress.add(1, len(found), 0)
    return [sample for number, _ in faces for sample in _read(folder, number)]


def _place(folder: str, number: int) -> str:
    return store.join(folder, f"{number:06d}.json")


def _read(folder: str, number: int) -> list[ErrorSample]:
    return [ErrorSample(**values) for values in json.loads(store.read_bytes(_place(folder, number)))]


def _has_all(folder: str, number: int, candidates: Sequence[Candidate]) -> bool:
    """Whether a photograph was measured with all of these treatments, or shows no face."""
    enlarged = [sample for sample in _read(folder, number) if not sample.stored]
    return all(c.name in sample.measured for sample in enlarged for c in candidates)
