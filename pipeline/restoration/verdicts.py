"""From a file of verdicts to an order: which units of the output are done again, and with what."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline.console.options import UsageError
from pipeline.diffusion.method import Method
from pipeline.io import store
from pipeline.io.delivered import UNREADABLE
from pipeline.io.tables import read_table
from pipeline.io.units import Unit
from pipeline.ledger.ledger import READERS, Ledger
from pipeline.ledger.plan import load_units
from pipeline.networks.presets import Preset
from pipeline.records.verdicts import (
    OF_THE_CHAIN,
    VERDICT_TEXTS,
    BadVerdicts,
    Verdict,
    digest,
    merged,
    read_verdicts,
    run_of,
    verdicts_to_json,
)
from pipeline.restoration.method import check_start
from pipeline.stages.record import by_image, storable
from pipeline.stages.verdicts import load_verdicts

# Columns of the records that a verdict is checked against.
CHECKED = ("kind", "face", "sha256", "treatment", "estimated_change", "error")


def order_verdicts(
    ledger: Ledger, file: str, given: Sequence[Verdict], preset: Preset, method: Method
) -> dict[str, str]:
    """Keep the verdicts of a file in the ledger; for each unit they are on, the digest of all verdicts on it.

    Nothing is kept unless all of them can be carried out. Raises UsageError or StoreError.
    """
    for number, verdict in enumerate(given, 1):
        check_settings(f"{file}: verdict {number}", verdict, preset, method)
    by_unit = _by_unit(file, ledger, given)
    with ThreadPoolExecutor(READERS) as pool:
        checked = list(pool.map(lambda pair: _checked(file, ledger.output, *pair), by_unit))
    wanted = {}
    for unit, verdicts in checked:
        before = load_verdicts(ledger.output, unit.name)
        history = merged(before, verdicts)
        if history != list(before):
            ledger.save_verdicts(unit.name, verdicts_to_json(history, run=ledger.run))
        wanted[unit.name] = digest(history)
    return wanted


def load_file(file: str, run: str = "") -> list[Verdict]:
    """The verdicts of a file. run: the identity that they must have been given for, where they name one."""
    try:
        data = store.read_bytes(file)
        given = read_verdicts(data)
    except BadVerdicts as error:
        raise UsageError(f"{file}: {error}") from error
    except store.StoreError as error:
        raise UsageError(f"--verdicts {file} can not be read: {error}") from error
    if run and run_of(data) not in ("", run):
        raise UsageError(
            f"{file} was given for another run than the one in --output; review that run's faces on its own page"
        )
    return given


def counted(given: Iterable[Verdict]) -> str:
    """How many there are of each kind, in words."""
    numbers = Counter(verdict.verdict for verdict in given)
    return ", ".join(f"{numbers[what]} {text}" for what, text in VERDICT_TEXTS.items() if numbers[what])


def check_settings(where: str, verdict: Verdict, preset: Preset, method: Method) -> None:
    """Raise UsageError where a redo names a chain that there is none of."""
    named = [name for name in OF_THE_CHAIN if name in verdict.settings]
    if method.without_prior and named and verdict.settings.get("method") != "estimator":
        raise UsageError(
            f"{where}: a run with --method estimator has no chain; leave {', '.join(named)} out of its settings"
        )
    if "start_step" in verdict.settings:
        try:
            check_start(preset, method.steps, verdict.settings["start_step"], method.start_rule)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error


def _by_unit(file: str, ledger: Ledger, given: Sequence[Verdict]) -> list[tuple[Unit, list[Verdict]]]:
    """The verdicts by their unit, with unit and place of the image filled in."""
    shards = {planned.shard.name: planned.shard for planned in ledger.shards}
    named = {v.unit.rpartition("-")[0] for v in given if v.unit}
    everywhere = any(not v.unit for v in given)
    searched = [shard for name, shard in shards.items() if everywhere or name in named]
    with ThreadPoolExecutor(READERS) as pool:
        units = [u for found in pool.map(lambda s: load_units(ledger.output, s), searched) for u in found]
    by_name = {unit.name: unit for unit in units}
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for unit in units:
        for place, address in enumerate(unit.images):
            places[storable(address.member)].append((unit.name, place))
    found: dict[str, list[Verdict]] = defaultdict(list)
    for number, verdict in enumerate(given, 1):
        here = [
            (name, place)
            for name, place in places.get(verdict.picture, [])
            if verdict.unit in ("", name) and verdict.place in (None, place)
        ]
        if len(here) != 1:
            some = "no picture of the run" if not here else f"{len(here)} pictures of the run"
            advice = "say which by unit and place" if here else "give its name as the records have it"
            raise UsageError(f"{file}: verdict {number} is on {verdict.picture}, which is {some}; {advice}")
        name, place = here[0]
        found[name].append(replace(verdict, unit=name, place=place))
    return [(by_name[name], verdicts) for name, verdicts in sorted(found.items())]


def _checked(
    file: str, output: str, unit: Unit, verdicts: Sequence[Verdict]
) -> tuple[Unit, Sequence[Verdict]]:
    """The verdicts with the sha256 of their pictures. Raises UsageError for one on a face that there is none of."""
    try:
        data = store.read_bytes(store.join(output, unit.records_path))
        rows = by_image(read_table(data).to_pylist())
    except (store.StoreError, *UNREADABLE) as error:
        raise UsageError(
            f"{file}: unit {unit.name}, which it has verdicts on, is not done; run the same command without "
            "--verdicts first"
        ) from error
    return unit, [_checked_one(file, verdict, rows[verdict.place or 0]) for verdict in verdicts]


def _checked_one(file: str, verdict: Verdict, rows: Sequence[Mapping[str, object]]) -> Verdict:
    what = f"{file}: face {verdict.face} of {verdict.picture}"
    picture, faces = rows[0], {row["face"]: row for row in rows[1:]}
    if verdict.face not in faces:
        raise UsageError(f"{what} has a verdict, and the picture has {len(faces)} faces; count from 0")
    if verdict.sha256 not in ("", picture["sha256"]):
        raise UsageError(f"{what} was reviewed in another version of the picture; review it again")
    face = faces[verdict.face]
    looked_at = face["treatment"] != "left" or face["estimated_change"] is not None
    if verdict.verdict == "redo" and not looked_at and not face.get("has_crop"):
        raise UsageError(
            f"{what} is to be redone, and was left before anything looked at it ({face['kept']}); leave it out"
        )
    return replace(verdict, sha256=str(picture["sha256"]))


def preview(file: str) -> Iterable[str]:
    """What a file of verdicts asks for, in lines."""
    given = load_file(file)
    pictures = {(v.unit, v.place, v.picture) for v in given if v.verdict != "accept"}
    yield f"verdicts {len(given)} faces: {counted(given) or 'none'}"
    yield f"again    {len(pictures)} pictures are written again; all others keep their bytes"


def said(ledger: Ledger, given: Sequence[Verdict]) -> str:
    """What was ordered, in a line."""
    kinds = counted(given) or "none"
    return f"verdicts on {len(given)} faces ({kinds}): {len(ledger.retrying)} units are written again"
