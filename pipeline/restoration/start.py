"""One start of a run, from its settings to its exit code."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline import Refusal
from pipeline.console.commands import OK, say
from pipeline.console.options import UsageError, values_of, with_values
from pipeline.console.progress import WaitNotice
from pipeline.diffusion.method import Method
from pipeline.io import layout, store
from pipeline.io.errors import redact
from pipeline.io.face_list import FaceList
from pipeline.io.names import escape_surrogates
from pipeline.io.shards import Listing, list_input
from pipeline.ledger.lease import Lease
from pipeline.ledger.ledger import Ledger, Settled, read_run, unit_images_of
from pipeline.ledger.output import BROKEN
from pipeline.ledger.plan import load_units
from pipeline.metrics.distribution import load_reference
from pipeline.networks.presets import Preset
from pipeline.records.verdicts import Verdict
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import Restorer, choose_method, settle_method, settle_metrics, sides_of
from pipeline.restoration.preview import dry_run
from pipeline.restoration.run import Restoration
from pipeline.restoration.verdicts import load_file, order_verdicts, preview, said


def check_places(source: str, output: str, folders: Sequence[str], written: bool = True) -> None:
    """Refuse an input that cannot be read, an output that cannot be written, and each inside the other.

    folders: what the job writes below its output; written: whether it will.
    """
    store.check_readable(source)
    if lies_in(output, source):
        raise UsageError(f"--output {output} lies inside --input {source}; choose a place outside")
    for folder in folders:
        if lies_in(source, store.join(output, folder)):
            raise UsageError(
                f"--input {source} lies where --output {output} puts its {folder}; choose another --output"
            )
    if written:
        store.check_claims(output)


def lies_in(uri: str, folder: str) -> bool:
    """Whether `uri` is the folder or below it."""
    place, around = (
        u if store.is_remote(u) else str(Path(u.removeprefix("file://")).resolve()) for u in (uri, folder)
    )
    return f"{place.rstrip('/')}/".startswith(f"{around.rstrip('/')}/")


def run(config: RestoreConfig) -> int:
    """Check, plan, restore what is pending, report. Returns the exit code."""
    preset, method = choose_method(config)
    check_places(config.input.uri, config.output.uri, layout.FOLDERS, written=not config.output.dry_run)
    with WaitNotice(f"planning: listing {redact(config.input.uri)}", listed_files()):
        listed = list_input(config.input.uri, config.input.kind, config.input.exclude)
    fitting = min(unit_images_of(config.output.uri, *listed), config.machine.shard_images)
    unit_images = config.machine.unit_images or fitting
    begun = begun_with(config)
    config = with_values(config, unit_images=unit_images, **as_begun(config, preset, begun))
    preset, method = method_as_begun(config, preset, begun)
    if config.output.dry_run and config.output.verdicts is not None:
        print("\n".join(preview(config.output.verdicts)))
        return OK
    if config.output.dry_run:
        return dry_run(config, preset, method, listed)
    with WaitNotice("checking the weights"):
        restorer, settings = settle_method(config, preset, method)
    restorer = replace(restorer, metrics=settle_metrics(config, say))
    reference = load_reference(config.metrics.reference)
    with Lease.take(config.output.uri, say) as lease:
        try:
            ledger, settled = open_ledger(config, restorer, settings, lease, listed)
        except Refusal:
            lease.withdraw()
            raise
        lease.exit_code = Restoration(config, restorer, ledger, settled, lease, reference).run()
        return lease.exit_code


def open_ledger(
    config: RestoreConfig,
    restorer: Restorer,
    settings: dict[str, Any],
    lease: Lease,
    listed: Listing,
) -> tuple[Ledger, list[Settled]]:
    """The output's ledger with its plan, and the shards that are done. Raises what refuses the run."""
    ledger = Ledger(config.output.uri, settings, lease.is_held)
    repeat = {"config": repeatable(config), "preset": asdict(restorer.preset)}
    new = ledger.claim(config.input.uri, repeat, config.output.new_run)
    if not new and (text := other_metrics(config)):
        say(text)
    try:
        with WaitNotice(f"planning: looking into the shards of {redact(config.input.uri)}"):
            ledger.plan(
                config.input.uri,
                config.input.kind,
                config.machine.shard_images,
                config.machine.unit_images,
                config.input.image_column,
                config.output.redo_changed,
                listed,
            )
        for flag, named in (("never", restorer.never), ("only", restorer.only)):
            if named is not None and (text := unknown_pictures(ledger, flag, named)):
                say(f"warning: {text}")
        verdicts = {}
        given: list[Verdict] = []
        if config.output.verdicts is not None:
            given = load_file(config.output.verdicts, ledger.run)
            verdicts = order_verdicts(ledger, config.output.verdicts, given, restorer.preset, restorer.method)
    except Refusal:
        if new:
            ledger.release()
        raise
    with WaitNotice("planning: reading what earlier starts have done", listed_files()):
        settled = ledger.resume(config.output.retry == "failed", config.output.reason, verdicts)
    say(plan_line(ledger, new))
    if config.output.verdicts is not None:
        say(said(ledger, given))
    elif ledger.retrying or config.output.retry:
        say(retry_line(ledger, config))
    return ledger, settled


def begun_with(config: RestoreConfig) -> Mapping[str, Any] | None:
    """The settings that the output was begun with; None for a new run."""
    if store.exists(store.join(config.output.uri, layout.RUN)) and not config.output.new_run:
        with suppress(*BROKEN):  # claiming the output says what is wrong with it
            return read_run(config.output.uri).fingerprint
    return None


def as_begun(config: RestoreConfig, preset: Preset, begun: Mapping[str, Any] | None) -> dict[str, str]:
    """The options whose default is what the run of the output was begun with: as asked for, so, or as a new run's."""
    label = config.output.label or ("xmp" if begun is None or "label" in begun else "none")
    sides = config.faces.sides or ("preset" if begun is None or "sides" in begun else "one")
    has_sides = sides_of(with_values(config, sides=sides), preset)
    return {"label": label, "sides": sides if has_sides else "one"}


def method_as_begun(
    config: RestoreConfig, preset: Preset, begun: Mapping[str, Any] | None
) -> tuple[Preset, Method]:
    """The preset and the method without what presets did not have when the run of the output was begun."""
    if begun is not None:
        before = tuple({k: v for k, v in row.items() if k != "left_below"} for row in preset.sides)
        preset = replace(
            preset,
            last_step=preset.last_step if "last_step" in begun else None,
            sides=before if begun.get("sides") == list(before) else preset.sides,
        )
    return choose_method(config, preset)


def unknown_pictures(ledger: Ledger, flag: str, named: FaceList) -> str:
    """What to say of pictures of a list that the plan does not have; empty where it has all."""
    unknown = dict.fromkeys(named.faces)
    for planned in ledger.shards if unknown else ():
        for unit in load_units(ledger.output, planned.shard):
            for address in unit.images:
                unknown.pop(escape_surrogates(address.member), None)
    if not unknown:
        return ""
    some = ", ".join(list(unknown)[:3]) + (", …" if len(unknown) > 3 else "")
    return f"{len(unknown)} of {len(named.faces)} pictures of --{flag} are not in the input: {some}"


def listed_files() -> tuple[Callable[[], int], str]:
    """What a wait for a listing counts: the files that are listed from here on."""
    before = store.listed()
    return lambda: store.listed() - before, "files"


def other_metrics(config: RestoreConfig) -> str:
    """What to say of an output that was begun with other metrics; empty for one that was not.

    They change no pixel, so that nothing is refused or done again for their sake.
    """
    before = read_run(config.output.uri).repeat.get("config", {}).get("metrics", "none")
    if before == config.metrics.names:
        return ""
    return (
        f"this output was begun with --metrics {before}: units that are done keep what was measured of them then, "
        f"and --metrics {config.metrics.names} is for those that are left; for all of them take --new-run"
    )


def repeatable(config: RestoreConfig) -> dict[str, Any]:
    """What the run file keeps of the command, so that a picture can be restored again; nothing of other services."""
    surroundings = {"mlflow_uri", "experiment", "run_name", "tags", "ray_address", "verdicts"}
    kept = {name: value for name, value in values_of(config).items() if name not in surroundings}
    return kept | {"weights_dir": redact(config.machine.weights_dir) if config.machine.weights_dir else None}


def plan_line(ledger: Ledger, new: bool) -> str:
    """What lies ahead, in one line."""
    what = f"{ledger.images_planned} images in {len(ledger.shards)} shards, {ledger.units_planned} units"
    return what if new else f"{what}; going on with {ledger.units_pending} units, the rest is done"


def retry_line(ledger: Ledger, config: RestoreConfig) -> str:
    """What is done again, in one line."""
    units = len(ledger.retrying)
    if config.output.redo_changed:
        return f"{units} of them are done again because pictures in them have changed"
    if ledger.ordered_before:
        return f"{units} units of the retry that was begun before are still done again; no other begins"
    if units:
        return f"{units} of them are done again because images failed"
    why = f" for {config.output.reason}" if config.output.reason else ""
    return f"nothing to retry: no image failed{why}; jobs.status shows what failed and why"
