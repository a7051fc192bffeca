"""One packaging of an output: which units are packaged, and what makes the bag whole."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import Literal

from pipeline import Refusal
from pipeline.console.commands import HAD_FAILURES, OK, UNEXPECTED, say
from pipeline.console.options import UsageError, option, require
from pipeline.console.progress import Progress, write_line
from pipeline.delivery.bag import Altered, Bag, Receipt
from pipeline.delivery.premis import Program
from pipeline.delivery.signing import Signer
from pipeline.delivery.unit import Packaged, PackageUnit
from pipeline.io import layout, store
from pipeline.io.names import escape_surrogates
from pipeline.io.prefetch import ahead
from pipeline.io.units import Unit
from pipeline.ledger.findings import Finding
from pipeline.ledger.output import BROKEN, Run, open_plan, open_run, open_shard
from pipeline.ledger.plan import PlannedShard
from pipeline.ledger.retries import load_retries
from pipeline.records.marker import Marker
from pipeline.restoration.start import lies_in

# The name of the receipt of the report's files, which belong to no unit.
REPORT = "report"
MOST_WORKERS = 16
DISTRIBUTION = "difface-pipeline"


class Unfinished(Refusal):
    """A run that is not done; the command exits with code 4."""

    exit_code = HAD_FAILURES


@dataclass(frozen=True)
class PackageConfig:
    """The options of a packaging."""

    output: str = option(
        help="the --output of a jobs.restore command: a folder or s3:// prefix",
        group="what",
        metavar="PATH_OR_URI",
    )
    bag: str = option(
        help="where the BagIt bag is made: an empty or new folder or s3:// prefix, or one to go on with",
        group="what",
        metavar="PATH_OR_URI",
    )
    premis: bool = option(
        False, help="also describe each unit in PREMIS 3.0, data/premis/UNIT.xml", group="what"
    )
    organization: str = option("", help="Source-Organization of bag-info.txt", group="what", metavar="NAME")
    partial: bool = option(
        False, help="package the units that are done of a run that is not finished", group="what"
    )
    sign_cert: str | None = option(
        None,
        help="sign restored pictures by C2PA with this certificate: a PEM file, the signer's first, then those above",
        group="signature",
        metavar="FILE",
    )
    sign_key: str | None = option(
        None, help="with --sign-cert: its private key, a PEM file", group="signature", metavar="FILE"
    )
    sign_alg: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = option(
        "es256", help="with --sign-cert: the type of the key", group="signature"
    )
    workers: int = option(0, help="units packaged at once; 0: by the number of cores", group="surroundings")
    dry_run: bool = option(False, help="say what would be packaged, and write nothing", group="surroundings")

    def __post_init__(self) -> None:
        if (self.sign_cert is None) != (self.sign_key is None):
            raise UsageError("--sign-cert and --sign-key go together, one of them is missing")
        rules = {
            "--workers must not be negative": self.workers >= 0,
            "--organization must be one line": self.organization.isprintable(),
        }
        require(self, rules)
        for inner, outer in ((self.bag, self.output), (self.output, self.bag)):
            if lies_in(inner, outer):
                raise UsageError(f"--bag {self.bag} and --output {self.output} must not lie in each other")


def package(config: PackageConfig) -> int:
    """Package an output; the exit code."""
    run, findings = open_run(config.output)
    _refuse(findings)
    plan, findings = open_plan(run)
    _refuse(findings)
    return Packaging(config, run, plan)()


def _refuse(findings: list[Finding]) -> None:
    if findings:
        raise UsageError(findings[0].sentence)


class Packaging:
    """One packaging of one output, with its terminal output."""

    def __init__(self, config: PackageConfig, run: Run, plan: list[PlannedShard]) -> None:
        self.config, self.run, self.plan = config, run, plan
        done = store.join(run.output, layout.DONE)
        found = store.list_files(done) if store.exists(done) else []
        self._markers = {f"{layout.DONE}/{entry.path}" for entry in found}
        self.units_planned = sum(p.units for p in plan)
        self.is_whole = bool(plan) and len(self._markers) >= self.units_planned
        if not self.is_whole and not config.partial:
            raise Unfinished(
                f"{len(self._markers)} of {self.units_planned} units of {run.output} are done; run the restore command "
                "to its end first, or give --partial to package those that are done"
            )
        is_folder = all(p.shard.kind == "folder" for p in plan)
        if config.sign_cert is not None and not is_folder:
            raise UsageError(
                f"--sign-cert signs pictures in files of their own, and {run.output} holds shards; package it without"
            )

    def __call__(self) -> int:
        """Package what is done, and say what came of it."""
        if self.config.dry_run:
            return self._preview()
        config = self.config
        signer = None
        if config.sign_cert is not None and config.sign_key is not None:
            signer = Signer.of(config.sign_cert, config.sign_key, config.sign_alg)
        bag = Bag(config.bag, self.run.run or self.run.digest)
        bag.claim()
        how = json.dumps(
            {"premis": config.premis, "certificate": signer.digest if signer else ""}, sort_keys=True
        )
        stage = PackageUnit(
            self.run, bag, program_of(self.run), load_retries(self.run.output), config.premis, signer, how
        )
        results = self._package_all(stage)
        wrong = [done for done in results if done.wrong]
        for done in wrong:
            write_line(escape_surrogates(done.wrong), sys.stdout)
        report = self._report(bag)
        if report.wrong:
            write_line(report.wrong, sys.stdout)
        if any(not done.whole for done in (*results, report)):
            say("the bag is not finished; once that is put right, the same command goes on")
            return UNEXPECTED
        every = [*results, report]
        names = [done.unit for done in every if done.unit]
        written = sum(done.written for done in every)
        files, octets = bag.finish(names, self._info(), datetime.now(UTC).date().isoformat(), written > 0)
        self._summary(every, files, octets)
        return OK

    def _units(self) -> Iterator[Unit]:
        """The units that are done, in order. Raises UsageError where the plan of a shard is damaged."""
        for planned in self.plan:
            units, findings = open_shard(self.run, planned)
            _refuse(findings)
            yield from (unit for unit in units if unit.marker_path in self._markers)

    def _package_all(self, stage: PackageUnit) -> list[Packaged]:
        """What became of each unit."""
        images = sum(p.images for p in self.plan)
        workers = self.config.workers or min(2 * (os.cpu_count() or 1), MOST_WORKERS)
        results = []
        with (
            ThreadPoolExecutor(workers) as pool,
            Progress(images, 0, sys.stderr, bad="not packaged") as progress,
        ):
            tasks = (partial(stage, unit) for unit in self._units())
            for done in ahead(pool, tasks, 2 * workers):
                results.append(done)
                progress.add(done.images, 0, 0 if done.whole else done.images)
        return results

    def _report(self, bag: Bag) -> Packaged:
        """The report's files in the bag; a run that is not finished may have none."""
        uri = store.join(self.run.output, layout.REPORT_FILES)
        try:
            data = store.read_bytes(uri) if store.exists(uri) else b"[]"
            written = [(str(f["path"]), str(f["sha256"]), int(f["size"])) for f in json.loads(data)]
            if not written:
                return Packaged("", 0)
            listed, before = hashlib.sha256(data).hexdigest(), bag.receipt(REPORT)
            if before is not None and before.listed == listed and bag.keeps(before):
                return Packaged(REPORT, 0)
            bag.open()
            output = self.run.output
            files = [bag.copy(store.join(output, path), path, sha256, size) for path, sha256, size in written]
            bag.write_receipt(Receipt(REPORT, listed, "", tuple(files)), before)
            return Packaged(REPORT, 0, True, len(files))
        except (Altered, *BROKEN) as error:
            return Packaged(REPORT, 0, whole=False, wrong=f"the report: {error}")

    def _info(self) -> dict[str, str]:
        """Lines of bag-info.txt beside date and sizes."""
        done = len(self._markers)
        state = "" if self.is_whole else f"; {done} of {self.units_planned} units, the run is not finished"
        info = {"Source-Organization": self.config.organization} if self.config.organization else {}
        return info | {
            "External-Identifier": self.run.run or self.run.digest,
            "External-Description": f"Photographs with restored faces{state}",
            "Internal-Sender-Description": f"Settings with the fingerprint {self.run.digest}",
            "Bag-Software-Agent": f"{DISTRIBUTION} {version()}",
        }

    def _preview(self) -> int:
        """What would be packaged, from the markers."""
        units = images = files = octets = 0
        for unit in self._units():
            marker = Marker.from_json(store.read_bytes(store.join(self.run.output, unit.marker_path)))
            units, images = units + 1, images + len(unit.images)
            files += len(marker.outputs)
            octets += sum(output.size for output in marker.outputs)
        print(f"units    {units} of {self.units_planned}")
        print(f"images   {images}")
        print(f"objects  {files} at most, {octets / 1e6:.1f} MB")
        print("nothing was written")
        return OK

    def _summary(self, every: list[Packaged], files: int, octets: int) -> None:
        print(f"units    {sum(bool(d.images) for d in every)} of {self.units_planned}")
        print(f"files    {files}, {octets / 1e6:.1f} MB; {sum(d.written for d in every)} written now")
        if self.config.sign_cert is not None:
            unsigned = sum(d.unsigned for d in every)
            more = f"; {unsigned} restored pictures of kinds that carry no signature" if unsigned else ""
            print(f"signed   {sum(d.signed for d in every)} now{more}")
        print(f"bag      {self.config.bag}")


def program_of(run: Run) -> Program:
    """What restored the pictures of a run."""
    preset = run.repeat.get("preset", {})
    weights = {str(role): str(digest) for role, digest in run.fingerprint.get("weights", {}).items()}
    method = run.fingerprint.get("method_version", "?")
    return Program(f"{version()}, method {method}", run.digest, str(preset.get("name", "?")), weights)


def version() -> str:
    """The installed version of this program, which may run from a folder."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "from a folder"
