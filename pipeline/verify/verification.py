"""One verification: the output is audited, and a sample of it restored again."""

import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipeline.console.commands import say
from pipeline.console.options import UsageError, option, with_values
from pipeline.console.progress import Progress, duration, write_line
from pipeline.io import layout, store
from pipeline.ledger.findings import Finding, Findings
from pipeline.ledger.ledger import difference
from pipeline.ledger.output import BROKEN, Run, open_run
from pipeline.networks.presets import Preset
from pipeline.records.rows import OUTCOMES
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.recorded import recorded
from pipeline.stages.record import storable
from pipeline.verify.audit import Audit
from pipeline.verify.repeat import TOLERANCE, Compared, Repeat

INTACT, DIFFERENT, UNFINISHED = 0, 1, 4
CODE_TEXTS = {
    INTACT: "the output is complete and unchanged",
    DIFFERENT: "differences were found",
    UNFINISHED: "no differences, but the run is not finished",
}
# Default limit of reader threads: reading is bound by disks and servers, decoding by cores.
MOST_READERS = 16


@dataclass(frozen=True)
class VerifyConfig:
    """The options of one verification."""

    output: str = option(
        help="the --output of a jobs.restore command: a folder or s3:// prefix",
        group="what",
        metavar="PATH_OR_URI",
    )
    sample: int = option(
        0,
        help="number of pictures to restore again from their originals and compare; 0 restores none",
        group="sample",
        metavar="K",
    )
    sample_seed: str | None = option(
        None,
        help="seed of the sample (default: the run's fingerprint, which gives the same pictures each time)",
        group="sample",
        metavar="TEXT",
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", help="device that restores them; auto takes the run's where it is available", group="sample"
    )
    weights_dir: str | None = option(
        None,
        help="folder or s3:// prefix searched for weights first (default: the run's)",
        group="sample",
        metavar="PATH_OR_URI",
    )
    readers: int = option(0, help="units read concurrently; 0: by the number of cores", group="surroundings")
    json: str | None = option(
        None, help="also write the report to this JSON file", group="surroundings", metavar="PATH_OR_URI"
    )

    def __post_init__(self) -> None:
        for name in ("sample", "readers"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} must not be negative, got {getattr(self, name)}")


def verify(config: VerifyConfig) -> int:
    """Verify an output; the exit code."""
    return Verification(config)()


class Verification:
    """One verification of one output, with its terminal output and report."""

    def __init__(self, config: VerifyConfig) -> None:
        self.config = config
        self.began = time.monotonic()
        self.found = Findings()
        self.run, wrong = open_run(config.output)
        # fails here, before hours of reading
        self.repeater = Repeater(config, self.run) if config.sample else None
        self.audit = Audit(self.run, config.sample, config.sample_seed or self.run.digest)
        self.compared: list[Compared] = []
        self._report_findings(wrong)

    def __call__(self) -> int:
        """Audit, restore again, report. Returns the exit code."""
        self._report_findings(self.audit.read_plan())
        readers = self.config.readers or min(2 * (os.cpu_count() or 1), MOST_READERS)
        with Progress(self.audit.images_planned, 0, sys.stderr, bad="different") as progress:
            for unit in self.audit.units(readers):
                self._report_findings(unit.findings)
                progress.add(unit.images, unit.counts.faces, len(unit.findings))
        self._report_findings(self.audit.unaccounted())
        if self.repeater and self.audit.candidates:
            self._repeat(self.repeater)
        code = INTACT
        if self.found.differences:
            code = DIFFERENT
        elif self.found.unfinished:
            code = UNFINISHED
        if self.config.json:
            body = json.dumps(self.report(code), indent=1)
            store.write_bytes(self.config.json, body.encode())
        self._summary(code)
        return code

    def _repeat(self, repeater: "Repeater") -> None:
        candidates = self.audit.candidates
        repeat = repeater.open({c.device for c in candidates})
        say(f"restoring {len(candidates)} pictures again on {repeat.device}: {repeater.batching}")
        with Progress(len(candidates), 0, sys.stderr, bad="different") as progress:
            for compared, candidate in zip(repeat.compare_all(candidates), candidates, strict=True):
                self.compared.append(compared)
                self._report_findings(compared.findings)
                progress.add(1, len(candidate.rows) - 1, len(compared.findings))

    def _report_findings(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.found.add(finding)
            write_line(storable(finding.sentence), sys.stdout)

    def _equal(self, same: str) -> int:
        return sum(c.same == same for c in self.compared)

    def report(self, code: int) -> dict[str, Any]:
        """The machine-readable report."""
        audit, found = self.audit, self.found
        return {
            "output": self.config.output,
            "fingerprint": self.run.digest,
            "exit_code": code,
            "meaning": CODE_TEXTS[code],
            "planned": {"units": audit.units_planned, "images": audit.images_planned},
            "finished": {"units": audit.finished} | asdict(audit.counts),
            "objects": audit.objects,
            "bytes": audit.bytes,
            "differences": {kind: number for kind, number in found.counts.items() if kind != "unfinished"},
            "findings": [asdict(f) for f in found.kept],
            "findings_left_out": found.counts.total() - len(found.kept),
            "unfinished_units": audit.unfinished,
            "markers_to_delete": list(found.markers),
            "sample": self._sample_report(),
            "seconds": round(time.monotonic() - self.began, 3),
        }

    def _sample_report(self) -> dict[str, Any] | None:
        if not self.repeater:
            return None
        return {
            "asked": self.config.sample,
            "seed": self.config.sample_seed or self.run.digest,
            "batching": self.repeater.batching,
            "device": self.repeater.device,
            "environment": self.repeater.environment,
            "tolerance_in_another_environment": TOLERANCE,
            "pictures": [
                {"unit": c.unit, "member": c.member, "same": c.same, "difference": c.difference}
                for c in self.compared
            ],
        }

    def _summary(self, code: int) -> None:
        audit, found = self.audit, self.found
        print()
        for outcome in OUTCOMES:
            print(f"{outcome:<14} {audit.counts.outcomes[outcome]:>8}")
        print(f"{'images':<14} {audit.counts.images:>8}  of {audit.images_planned} planned")
        print(f"{'units':<14} {audit.finished:>8}  of {audit.units_planned} planned")
        print(f"{'objects':<14} {audit.objects:>8}  {audit.bytes / 1e6:.1f} MB read")
        if self.repeater:
            asked, close = self.config.sample, self._equal("tolerance")
            within = f", {close} within {TOLERANCE:g} levels in another environment" if close else ""
            print(f"{'restored again':<14} {len(self.compared):>8}  of {asked} asked; "
                  f"{self._equal('bits')} equal bit for bit{within}")  # fmt: skip
        print(f"{'differences':<14} {found.differences:>8}")
        print(f"{'time':<14} {duration(time.monotonic() - self.began):>8}")
        print(f"{'exit code':<14} {code:>8}  {CODE_TEXTS[code]}\n")
        if found.markers:
            print("To redo the damaged units, delete these markers and run the same restore command:")
            for marker in found.markers:
                print(f"  {storable(store.join(self.config.output, marker))}")


class Repeater:
    """Builds the stages that restore pictures of a run again, with other batches than the run's."""

    def __init__(self, config: VerifyConfig, run: Run) -> None:
        """Raises UsageError when the run cannot be repeated here, and the errors of missing weights."""
        from pipeline.restoration.method import choose_method, settle_method

        self._wanted_device = config.device
        self.device = self.batching = ""
        self.environment: dict[str, str] = {}
        try:
            self._config, preset = recorded(run, config.weights_dir)
        except BROKEN as error:
            raise UsageError(
                f"the run file of {run.output} lacks what is needed to restore a picture again "
                f"({type(error).__name__}: {error}); verify without --sample"
            ) from error
        self._restorer, again = settle_method(self._config, *choose_method(self._config, preset))
        if run.precision:
            self._config = with_values(self._config, precision=run.precision)
        other = difference(run.fingerprint, again)
        if other:
            raise UsageError(
                f"the run of {run.output} cannot be repeated here ({other}); use the program and weights of the "
                "run, or verify without --sample"
            )

    def open(self, devices: set[str]) -> Repeat:
        """The stages, with the networks loaded. devices: the device types on which the run restored."""
        import torch

        from pipeline.restoration.method import publish_stage, read_stage, restore_stage
        from pipeline.stages.restore import RestoreFaces

        self.device = self._wanted_device
        if self.device == "auto":
            self.device = "cuda" if "cuda" in devices and torch.cuda.is_available() else "cpu"
        # a stop object that never exists, so that a stopped run can be verified, too
        never = store.join(self._config.output.uri, layout.LEDGER, "verification-stop")
        threads = max((os.cpu_count() or 1) // max(self._config.machine.engines, 1), 1)
        settings = restore_stage(self._config, self._restorer, self.device, threads + 1, never)
        settings = replace(
            settings, slots=other_slots(self._config, self._restorer.preset, self.device, threads)
        )
        self.batching = f"{settings.slots} slots, {settings.threads} threads, alone and in mixed batches"
        restore = RestoreFaces(settings)
        self.environment = restore.environment
        return Repeat(
            read_stage(self._config, self._restorer, never),
            restore,
            publish_stage(self._config, self._restorer, self.device),
            self.device,
            self.environment,
        )


def other_slots(config: RestoreConfig, preset: Preset, device: str, threads: int) -> int:
    """A number of slots other than the run's: one batch more."""
    batch = preset.lanes_cpu if device == "cpu" else preset.lanes_gpu
    return (config.machine.slot_count or batch * threads) + batch
