"""The steps after a version is written: summary, shards of its pictures, gates, MLflow."""

import json

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cleaning.bundle import BundlePictures
from pipeline.cleaning.gates import gate_value, is_broken, version_gates
from pipeline.cleaning.options import CleanConfig
from pipeline.cleaning.plan import Plan, mlflow_uri
from pipeline.cleaning.policy import EVERY_REASON
from pipeline.cleaning.versions import Version, read_manifest
from pipeline.console.commands import GATE_BROKEN, OK, UNEXPECTED, interrupt, on_stop_signals, say
from pipeline.io import layout, store
from pipeline.io.webdataset import suffix_of, webdataset_names
from pipeline.restoration.flow import MOST_DEATHS, connect, run_tasks
from pipeline.restoration.run import STATUSES
from pipeline.tracking.address import ui_command
from pipeline.tracking.tracker import RunTracker


def finish(plan: Plan, version: Version, new: bool = False) -> int:
    """Print, export and track the version of a start, new or not. Returns the exit code."""
    config = plan.config
    if not new:
        say(f"nothing new since version {version.number}")
    print(summary(version, config))
    if config.materialise and not materialise(config, version):
        return UNEXPECTED
    code = gate_code(config, version)
    track(plan, version, code)
    print(f"version        {store.join(config.output, version.path)}")
    print(f"report         {store.join(config.output, 'reports', f'{version.number:04d}', 'index.html')}")
    return code


def materialise(config: CleanConfig, version: Version) -> bool:
    """Write the pictures of a version as tar shards below `data/NNNN`, once; False if some could not be written."""
    folder = f"data/{version.number:04d}"
    if store.exists(done := store.join(config.output, folder, "_done.json")):
        return True
    rows = read_manifest(config.output, version)
    rows = rows.filter(pc.is_in(rows.column("verdict"), pa.array(["keep", "repair"])))
    pictures = rows.select(
        ["name", "uri", "member", "offset", "length", "sha256", "repaired", "repaired_sha256"]
    )
    suffixes = [suffix_of(kind) for kind in rows.column("format").to_pylist()]
    samples = webdataset_names(rows.column("name").to_pylist(), suffixes)
    pictures = pictures.append_column("sample", pa.array(samples, pa.string()))
    size = config.unit_images
    shards = [
        {
            "path": f"{folder}/part-{i // size:05d}.tar",
            "pictures": json.dumps(pictures.slice(i, size).to_pylist()),
        }
        for i in range(0, rows.num_rows, size)
    ]
    with on_stop_signals(interrupt):
        connect(config.ray_address)
    left = {shard["path"] for shard in shards}
    for row in (
        run_tasks(shards, BundlePictures(config.output, config.image_column), MOST_DEATHS) if shards else ()
    ):
        if row["undelivered"]:
            say(f"warning: {row['path']} was not written: {row['undelivered']}")
        else:
            left.discard(row["path"])
    if left:
        say(f"error: {len(left)} of {len(shards)} shards could not be written; run the same command again")
        return False
    contents = {"version": version.number, "shards": len(shards), "pictures": rows.num_rows}
    store.write_bytes(done, json.dumps(contents).encode())
    print(f"data           {store.join(config.output, folder)}")
    return True


def summary(version: Version, config: CleanConfig) -> str:
    """The summary table."""
    lines = ["", f"{'pictures':<16} {version.images:>8}"]
    for verdict in ("keep", "repair", "drop"):
        lines.append(f"{verdict:<16} {version.verdicts.get(verdict, 0):>8}")
    for reason in EVERY_REASON:
        if count := version.reasons.get(reason, 0):
            lines.append(f"  {reason:<16} {count:>8}")
    lines.append(f"{'new':<16} {version.new_images:>8}  since version {version.parent}")
    lines.append(f"{'deleted':<16} {version.deleted:>8}\n")
    return "\n".join(lines)


def gate_code(config: CleanConfig, version: Version) -> int:
    """GATE_BROKEN if a condition of --fail-if is true, else OK; prints those that are."""
    broken = [gate for gate in version_gates(config.fail_if) if is_broken(gate, version)]
    for gate in broken:
        say(f"gate broken: {gate.text}, it is {gate_value(gate, version):.4g}")
    return GATE_BROKEN if broken else OK


def track(plan: Plan, version: Version, code: int) -> None:
    """Log a version's metrics and report to MLflow, once; the next start retries what was not delivered."""
    config = plan.config
    tracked = store.join(config.output, layout.LEDGER, "told", f"{version.number:04d}")
    if store.exists(tracked):
        return
    folder = store.join(config.output, "reports", f"{version.number:04d}")
    report = json.loads(store.read_bytes(store.join(folder, "summary.json")))
    uri = mlflow_uri(config)
    tracker = RunTracker.open(
        uri,
        config.experiment,
        store.name_of(config.output),
        params=config.thresholds() | {"preset": config.preset, "input": config.input},
        tags={"version": version.number, "settings": version.settings},
        state_uri=store.join(config.output, layout.TRACKING),
        warn=lambda text: say(f"warning: {text}"),
    )
    with tracker:
        tracker.log_input(config.input, version.listing or version.manifest_sha256)
        tracker.log_shard(version.number, report["metrics"], round(report["made_at"] * 1000))
        for entry in store.list_files(folder):
            tracker.log_artifact(entry.uri, f"{version.number:04d}/{entry.path}")
        if not tracker.finish(STATUSES.get(code, "FAILED")):
            store.write_bytes(tracked, b"")
    print(f"MLflow         {ui_command(uri)}")
