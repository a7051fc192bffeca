"""What a run says of itself: its settings and its plan, read from an output and checked against each other."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from pipeline import Refusal
from pipeline.io import layout, store
from pipeline.io.images import MAX_PIXELS
from pipeline.io.layout import PLAN, REPORT_FILES, RUN
from pipeline.io.shards import cut_units
from pipeline.io.units import Address, Unit
from pipeline.ledger.findings import Finding
from pipeline.ledger.ledger import read_run
from pipeline.ledger.plan import PlannedShard, load_units, read_plan
from pipeline.records.fingerprint import fingerprint_digest
from pipeline.records.rows import NOT_RESTORED
from pipeline.records.run_file import RunFile

BY_COPY = "put it back from a copy, or restore into another --output"

# What reading a damaged JSON file raises.
BROKEN = (store.StoreError, ValueError, KeyError, TypeError, AttributeError)


class NoRun(Refusal, ValueError):
    """A place that holds no output of jobs.restore; the command exits with code 2."""


@dataclass(frozen=True)
class Run(RunFile):
    """The run of an output; its fingerprint is empty where the run file is damaged."""

    output: str = ""

    @property
    def max_pixels(self) -> int:
        return int(self.fingerprint.get("max_pixels", MAX_PIXELS))

    @property
    def image_column(self) -> str:
        return str(self.fingerprint.get("image_column", "image"))

    def as_delivered(self, record: dict[str, Any]) -> dict[str, Any]:
        """An image's record with the size of the delivered picture, and as restored where that is no original."""
        background = self.fingerprint.get("background")
        restored = record["outcome"] == "restored"
        if background and (restored or record["outcome"] == "no_face" or record["reason"] in NOT_RESTORED):
            times = background["upscale"]
            size = {"width": record["width"] * times, "height": record["height"] * times}
            return record | size | {"outcome": "restored"}
        if restored and self.fingerprint.get("task") == "upscale":
            side = self.fingerprint["preset_side"]
            return record | {"width": side, "height": side}
        return record

    @property
    def settings(self) -> dict[str, Any]:
        """Columns of the records that are the same for every restored face of the run."""
        if not self.fingerprint:
            return {}
        weights = self.fingerprint["weights"]
        same = {n: self.fingerprint[n] for n in ("eta", "seed")}
        networks = (weights[role][:16] for role in ("prior", "estimator") if role in weights)
        same["model_sha256"] = "+".join(networks)
        varied = self.fingerprint.get("treatment") or "gates" in self.fingerprint
        if any("eta" in row for row in self.fingerprint.get("treatment", ())):
            del same["eta"]
        if varied or not self.fingerprint["start_step"]:
            return same  # each face has its own, or none has a chain
        return same | {"start_step": self.fingerprint["start_step"]}


def open_run(output: str) -> tuple[Run, list[Finding]]:
    """The run of an output, and what is wrong with its run file. Raises NoRun or StoreError."""
    store.check_readable(output)
    if not store.exists(store.join(output, layout.LEDGER)):
        raise NoRun(
            f"{output} holds no run (there is no {layout.LEDGER} in it); give the --output of a jobs.restore or "
            "jobs.clean command"
        )
    try:
        found = read_run(output)
        run = Run(**vars(found), output=output)
        digest, _ = fingerprint_digest(run.fingerprint), run.settings
    except BROKEN as error:
        what = f"{RUN}: the run's settings were wanted, it can not be read ({_named(error)}); {BY_COPY}"
        return Run("", {}, output=output), [Finding("run", RUN, what)]
    if digest != run.digest:
        what = (
            f"{RUN}: settings with the digest {run.digest} were wanted, those in it have {digest}; {BY_COPY}"
        )
        return run, [Finding("run", RUN, what)]
    if not run.is_intact:
        what = f"{RUN}: what the run wrote was wanted, its checksum does not fit what is there; {BY_COPY}"
        return run, [Finding("run", RUN, what)]
    return run, []


def open_plan(run: Run) -> tuple[list[PlannedShard], list[Finding]]:
    """The planned shards, and what is wrong with the plan file."""
    try:
        found = read_plan(run.output)
    except BROKEN as error:
        what = f"{PLAN}: the run's plan was wanted, it can not be read ({_named(error)}); {BY_COPY}"
        return [], [Finding("plan", PLAN, what)]
    plan = list(found.shards)
    shards, files = Counter(p.shard.name for p in plan), Counter(f.path for p in plan for f in p.shard.files)
    twice = [name for counted in (shards, files) for name, number in counted.items() if number > 1]
    if twice:
        what = f"{PLAN}: every shard and file was wanted once, {', '.join(twice[:3])} is in it twice"
        return plan, [Finding("plan", PLAN, f"{what}; {BY_COPY}")]
    if plan and run.digest and found.run != run.run:
        what = f"{PLAN}: the plan of this run was wanted, that of another one is there"
        return plan, [
            Finding("plan", PLAN, f"{what}; run the same restore command again, which plans it again")
        ]
    if not found.is_intact:
        what = f"{PLAN}: what the run wrote was wanted, its checksum does not fit what is there; {BY_COPY}"
        return plan, [Finding("plan", PLAN, what)]
    return plan, []


def open_report(run: Run) -> Iterator[Finding]:
    """In what the report is not the one that was written; one that is being written, or never was, is no matter."""
    again = "run the same restore command again, which writes the report again"
    uri = store.join(run.output, REPORT_FILES)
    if not store.exists(uri):
        return
    try:
        written = [(str(f["path"]), str(f["sha256"])) for f in json.loads(store.read_bytes(uri))]
    except BROKEN as error:
        what = f"{REPORT_FILES}: the files of the report were wanted, it can not be read ({_named(error)}); {again}"
        yield Finding("altered", REPORT_FILES, what)
        return
    for path, sha256 in written:
        try:
            found = hashlib.sha256(store.read_bytes(store.join(run.output, path))).hexdigest()
        except store.StoreError as error:
            yield Finding("missing", path, f"{path}: a file of the report was wanted, {error}; {again}")
            continue
        if found != sha256:
            what = (
                f"{path}: sha256 {sha256[:16]} was wanted, as the report was written, {found[:16]} is there"
            )
            yield Finding("altered", path, f"{what}; {again}")


def open_shard(run: Run, planned: PlannedShard) -> tuple[list[Unit], list[Finding]]:
    """The units of a shard; none, and why, where they are not the ones that were planned."""
    path = layout.plan_path(planned.shard.name)
    try:
        units = load_units(run.output, planned.shard)
        wrong = next(_wrong_cut(run, planned, units), "")
        if not wrong and planned.digest:
            digest = hashlib.sha256(store.read_bytes(store.join(run.output, path))).hexdigest()
            if digest != planned.digest:
                wrong = "what the run wrote was wanted, its checksum in plan.json does not fit what is there"
    except BROKEN as error:
        what = (
            f"{path}: the units of the shard were wanted, they can not be read ({_named(error)}); {BY_COPY}"
        )
        return [], [Finding("plan", path, what)]
    return ([], [Finding("plan", path, f"{path}: {wrong}; {BY_COPY}")]) if wrong else (units, [])


def _is_inside(address: Address, span: tuple[int, int]) -> bool:
    """Whether a member lies in a span of its tar; a hard link's header does, its bytes lie anywhere before it."""
    if address.link:
        return span[0] <= address.link < span[1] and address.offset + address.length <= address.link
    return span[0] <= address.offset and address.offset + address.length <= span[1]


def _wrong_cut(run: Run, planned: PlannedShard, units: Sequence[Unit]) -> Iterator[str]:
    """In what the units are not the cut of the shard that plan.json describes.

    A folder is cut again; of a tar or Parquet shard, which would have to be read, the cut must at least be whole.
    """
    shard = planned.shard
    images = [a for u in units for a in u.images]
    if (len(units), len(images)) != (planned.units, planned.images):
        yield (
            f"{planned.units} units with {planned.images} images were wanted, as plan.json says, "
            f"{len(units)} with {len(images)} are in it"
        )
    source = "" if shard.kind == "folder" else shard.files[0].uri
    for part, unit in enumerate(units):
        found = (unit.shard, unit.kind, unit.part, unit.last, unit.source)
        wanted = (shard.name, shard.kind, part, part == len(units) - 1, source)
        if found != wanted:
            yield f"unit {part} was wanted as {wanted}, it says {found}"
    if shard.kind == "folder":
        cut = run.fingerprint.get("unit_images")
        whole = (
            [replace(unit, run=run.run) for unit in cut_units(shard, cut, run.image_column)] if cut else []
        )
        if cut and list(units) != whole:
            yield "the pictures that plan.json lists for the shard were wanted, others are in it"
        return
    if any(a.uri != source for a in images):
        yield f"images in {source} were wanted, some lie elsewhere"
    places = [a.offset for a in images]
    if shard.kind == "parquet":
        if places != list(range(len(places))):
            yield "every row was wanted once and in order, others are in it"
        return
    ends = [0, *(u.span[1] for u in units)]
    if [u.span[0] for u in units] != ends[:-1] or ends[-1] != shard.files[0].size:
        yield "spans that cover the tar without a gap were wanted, others are in it"
    inside = all(_is_inside(a, u.span) for u in units for a in u.images)
    # a link, or damage, begins where the bytes of an empty picture before it lie
    order = [(a.link or a.offset, bool(a.link) or a.refused == "damaged shard") for a in images]
    if not inside or any(a >= b for a, b in pairwise(order)):
        yield "members in the tar's order and inside their unit's span were wanted, others are in it"


def _named(error: BaseException) -> str:
    return str(error) if isinstance(error, store.StoreError) else f"{type(error).__name__}: {error}"
