"""Where things lie below an output. Every path is relative to it, with `/` between its parts.

images/…  shards/…  faces/…            what is delivered
records/UNIT.parquet                   a row for each face and image of a unit
report/                                the report, and each unit's strip of its contact sheet
review/                                the page to review faces on, and pictures of each unit's faces for it
_ledger/                               what the run is, what is planned and what is done
"""

IMAGES, SHARDS, FACES, RECORDS, REPORT, LEDGER = "images", "shards", "faces", "records", "report", "_ledger"
REVIEW = "review"
FOLDERS = (IMAGES, SHARDS, FACES, RECORDS, REPORT, REVIEW, LEDGER)

# Bytes of a picture's name beside which a sidecar's is no longer than file systems take (255).
LONGEST_NAME = 240
# Strips of the contact sheet.
SAMPLES = f"{REPORT}/samples"
# Pictures of faces for the review page; the page; the verdicts that it saves.
TILES = f"{REVIEW}/tiles"
# The same of runs that wrote none, made by jobs.review; no marker names them.
MADE_TILES = f"{REVIEW}/made"
REVIEW_PAGE, SAVED_VERDICTS = f"{REVIEW}/index.html", f"{REVIEW}/verdicts.json"
# What the run is; the claim on the output.
RUN = f"{LEDGER}/run.json"
# Its shards, and a folder with the units of each.
PLAN, PLANNED_UNITS = f"{LEDGER}/plan.json", f"{LEDGER}/plan"
# Folder of the markers.
DONE = f"{LEDGER}/done"
# Folder of the starts: who drives the run.
DRIVERS = f"{LEDGER}/drivers"
# Units that were begun again.
RETRIES = f"{LEDGER}/retries.json"
# Folder of the verdicts that were given on each unit's faces.
VERDICTS = f"{LEDGER}/verdicts"
# What MLflow has of the run.
TRACKING = f"{LEDGER}/tracking.json"
# The same of an output without a ledger: an evaluation's or a training's.
TRACKING_WITHOUT_LEDGER = "_tracking.json"
# Size and sha256 of each of the report's files.
REPORT_FILES = f"{LEDGER}/report.json"
# The lock under which a local output is written.
LOCK = f"{LEDGER}/.lock"


def plan_path(shard: str) -> str:
    """The units of a shard, as a JSON list."""
    return f"{PLANNED_UNITS}/{shard}.json"


def marker_path(shard: str, part: int) -> str:
    """The marker of a unit."""
    return f"{DONE}/{shard}/{part:04d}.json"


def start_path(number: int) -> str:
    """The file of a start of the job."""
    return f"{DRIVERS}/{number:04d}.json"


def stop_path(number: int) -> str:
    """The object that makes the workers of a start begin nothing more."""
    return f"{DRIVERS}/{number:04d}.stop"


def verdicts_path(unit: str) -> str:
    """The verdicts that were given on a unit's faces."""
    return f"{VERDICTS}/{unit}.json"


def image_path(member: str) -> str:
    """A restored picture of a folder, by its path below the input."""
    return f"{IMAGES}/{member}"


def sidecar_path(member: str) -> str:
    """What says of a restored picture of a folder that it is one, where its file can not."""
    return f"{image_path(member)}.xmp"


def has_sidecar(member: str) -> bool:
    """Whether there is room for one: the picture's own name is not so long that this one's is refused."""
    return len(member.rpartition("/")[2].encode(errors="surrogateescape")) <= LONGEST_NAME


def shard_path(unit: str, kind: str) -> str:
    """The shard that a tar or Parquet unit delivers."""
    return f"{SHARDS}/{unit}.{kind}"


def records_path(unit: str) -> str:
    """A unit's records."""
    return f"{RECORDS}/{unit}.parquet"


def faces_folder(unit: str) -> str:
    """A unit's aligned crops."""
    return f"{FACES}/{unit}"


def tiles_folder(unit: str) -> str:
    """Pictures of a unit's faces for the review page."""
    return f"{TILES}/{unit}"


def made_tiles_folder(unit: str) -> str:
    """Such pictures that were made after the run."""
    return f"{MADE_TILES}/{unit}"


def report_path(name: str) -> str:
    """A file of the report."""
    return f"{REPORT}/{name}"


def sample_path(unit: str) -> str:
    """A unit's strip of the contact sheet."""
    return f"{SAMPLES}/{unit}.jpg"
