"""Clean a dataset: keep, repair or drop each picture, and write a version of what is left.

`python -m jobs.clean --input PATH_OR_URI --output PATH_OR_URI`; the same command again takes what is new.
"""

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cleaning import BUSY, Cleaning, Plan, finish, make_plan, nothing_new
from pipeline.cleaning.options import SHARED, CleanConfig
from pipeline.cleaning.policy import read_policy
from pipeline.cleaning.versions import DamagedVersion, last_version, listing_digest
from pipeline.console.commands import BAD_ARGUMENTS, INTERRUPTED, leave, on_stop_signals, say
from pipeline.console.options import UsageError, parse
from pipeline.console.progress import Waiting
from pipeline.io.errors import redact
from pipeline.io.shards import list_input
from pipeline.ledger.lease import AlreadyDriven, Driver
from pipeline.restoration.start import REFUSALS, check_places, listed_files

# Folders that a cleaning writes below its output.
WRITTEN = ("versions", "measurements", "repairs", "reports", "data", "_ledger")

EPILOG = """examples:
  python -m jobs.clean --input photos --output cleaned --dry-run      census and report; repairs nothing, no version
  python -m jobs.clean --input photos --output cleaned
  python -m jobs.clean --input s3://in/shards --output s3://out/cleaned --policy policy.toml --fail-if "no_face>0.2"
exit codes:
  0 a version was written, or nothing is new · 2 bad arguments · 3 more failed repairs than --max-error-rate allows
  5 a condition of --fail-if holds · 75 another start is at work · 130 interrupted · 1 anything unexpected
The same command again goes on where the last one stopped, and does nothing where nothing is new."""


def parse_clean(argv: Sequence[str] | None) -> tuple[CleanConfig, dict[str, Any]]:
    """The configuration, and the further options of jobs.restore that its policy file gives."""
    config = parse(CleanConfig, argv, description=__doc__ or "", epilog=EPILOG)
    if config.policy is None:
        return config, {}
    defaults, restore = read_policy(config.policy)
    defaults |= {name: restore.pop(name) for name in SHARED if name in restore}
    return parse(CleanConfig, argv, __doc__ or "", EPILOG, defaults), restore


def run(plan: Plan) -> int:
    """Look what is new; where something is, measure, judge, repair, and write a version. Returns the exit code."""
    config = plan.config
    check_places(config.input, config.output, WRITTEN)
    with Waiting(f"planning: listing {redact(config.input)}", listed_files()):
        kind, entries = list_input(config.input, config.kind, config.exclude)
    last = last_version(config.output)
    if last and last.input != config.input:
        raise UsageError(
            f"{config.output} holds versions of {last.input}, not of {config.input}; choose another --output"
        )
    if last and not config.dry_run and nothing_new(plan, last, listing_digest(entries)):
        return finish(plan, last)
    with Driver.take(config.output, say) as driver:
        # one that was at work until now may have written another
        driver.exit_code = Cleaning(plan, kind, entries, last_version(config.output), driver).run()
        return driver.exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    try:
        config, extra = parse_clean(argv)
        with on_stop_signals(leave):
            return run(make_plan(config, extra))
    except AlreadyDriven as error:
        say(f"busy: {error}")
        return BUSY
    except (*REFUSALS, DamagedVersion) as error:
        say(f"error: {error}")
        return BAD_ARGUMENTS
    except KeyboardInterrupt:
        say("stopped; the same command goes on where this one was")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
