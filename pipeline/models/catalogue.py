"""The models there are: presets, detectors, background networks and the networks of metrics, with files and terms."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.console.options import UsageError, option
from pipeline.io import store, weights
from pipeline.io.weights import (
    DETECTOR_WEIGHTS,
    METRIC_WEIGHTS,
    UPSCALER_WEIGHTS,
    Copy,
    Published,
    Resolved,
    WeightsError,
)
from pipeline.networks.checkpoint import CheckpointError, read_state
from pipeline.networks.presets import (
    NetworkSpec,
    find_preset,
    load_network,
    preset_names,
    takes_mask,
)
from pipeline.networks.spandrel_models import load_upscaler
from pipeline.networks.tiling import MARGIN, TILE

DONE, WRONG = 0, 1
FAILURES = (WeightsError, CheckpointError, store.StoreError)
COLUMNS = ("model", "side", "use", "file", "size", "found", "licence")


@dataclass(frozen=True)
class ModelsConfig:
    """One question about models, or one errand."""

    deed: Literal["list", "fetch", "mirror", "check"] = option(
        "list", help="what to do; list where nothing is said", group="what", positional=True
    )
    models: tuple[str, ...] = option(
        (),
        help="names as `list` shows them, or paths of preset files; list and check take all by default",
        group="what",
        metavar="MODEL",
        positional=True,
    )
    to: str | None = option(
        None, help="mirror: folder or s3:// prefix to copy the files to", group="what", metavar="PATH_OR_URI"
    )
    weights_dir: str | None = option(
        None,
        help="folder or s3:// prefix where files are looked for before the cache, such as a mirror",
        group="how",
        metavar="PATH_OR_URI",
    )
    json: str | None = option(
        None,
        help="write what is told to this JSON file, too; - prints it instead of the text",
        group="how",
        metavar="PATH_OR_URI|-",
    )

    def __post_init__(self) -> None:
        if self.deed in ("fetch", "mirror") and not self.models:
            raise UsageError(f"{self.deed} needs the names of models; `list` shows them")
        if (self.deed == "mirror") != (self.to is not None):
            raise UsageError("--to is where mirror copies files to: the two go together")


@dataclass(frozen=True)
class Piece:
    """One weights file of a model."""

    file: str
    url: str | None
    sha256: str | None
    licence: str
    # the network that it must fit, where that is ours to build
    network: NetworkSpec | None = None
    # a network of whole pictures, which is what its file says
    upscales: bool = False


@dataclass(frozen=True)
class Model:
    """Something with a name that needs weights files."""

    name: str
    # of the face crop, pixels; only presets have one
    side: int | None
    use: Literal["restoration", "inpainting", "detection", "background", "metric"]
    pieces: tuple[Piece, ...]
    description: str = ""


@dataclass(frozen=True)
class Told:
    """What is said of one file, or of one copy of it."""

    model: str
    side: int | None
    use: str
    file: str
    licence: str
    # bytes, where the file is there
    size: int | None = None
    # where it is: "package", "weights-dir", "cache", "path", or "missing"
    found: str = "missing"
    uri: str | None = None
    sha256: str | None = None
    # what was done or found out, in words
    state: str = ""
    good: bool = True


# What needs one published file and no preset: how it is used, and the files by name.
SINGLE: tuple[tuple[Literal["detection", "background", "metric"], str, Mapping[str, Published]], ...] = (
    ("detection", "face detector", DETECTOR_WEIGHTS),
    ("background", "enhances whole pictures", UPSCALER_WEIGHTS),
    ("metric", "judges restored faces", METRIC_WEIGHTS),
)


def known_models() -> list[str]:
    """Names of all that ship with the program."""
    return [*preset_names(), *(name for _, _, files in SINGLE for name in files)]


def find_model(name: str) -> Model:
    """What has this name. Raises PresetError when there is none."""
    for use, description, files in SINGLE:
        if name in files:
            p = files[name]
            piece = Piece(p.file, p.url, p.sha256, p.licence, upscales=use == "background")
            return Model(name, None, use, (piece,), description)
    preset = find_preset(name)
    pieces = tuple(Piece(s.file, s.url, s.sha256, s.licence, s) for s in (preset.prior, preset.estimator))
    return Model(
        preset.name,
        preset.side,
        "inpainting" if takes_mask(preset.estimator) else "restoration",
        pieces,
        preset.description,
    )


def about(model: Model, piece: Piece) -> Told:
    """What is known of a file before it is looked for."""
    return Told(model.name, model.side, model.use, Path(piece.file).name, piece.licence)


def with_copy(told: Told, copy: Copy) -> Told:
    """The same of a copy that was found."""
    return replace(told, found=copy.place, uri=copy.file.uri, size=copy.file.size)


def look(told: Told, piece: Piece, config: ModelsConfig) -> Iterator[Told]:
    """Where a file would be taken from."""
    found = next(weights.copies(piece.file, piece.url, config.weights_dir), None)
    yield with_copy(told, found) if found else told


def fetch(told: Told, piece: Piece, config: ModelsConfig) -> Iterator[Told]:
    """Have a file on this machine, and fitting its network."""
    try:
        yield obtain(told, piece, config)[0]
    except FAILURES as error:
        yield replace(told, state=str(error), good=False)


def mirror(told: Told, piece: Piece, config: ModelsConfig) -> Iterator[Told]:
    """Copy a file to the mirror."""
    to = store.absolute(config.to or "")
    try:
        told, found = obtain(told, piece, config)
        missing = weights.mirror(found, to, piece.url, piece.licence)
        yield replace(told, state=f"copied to {to}" if missing else f"is in {to}, read again")
    except FAILURES as error:
        yield replace(told, state=str(error), good=False)


def obtain(told: Told, piece: Piece, config: ModelsConfig) -> tuple[Told, Resolved]:
    """A file that is now on this machine, and what is said of it. Raises one of FAILURES."""
    found = weights.resolve(piece.file, piece.url, piece.sha256, config.weights_dir)
    check_fits(piece, found)
    told = with_copy(told, next(weights.copies(piece.file, piece.url, config.weights_dir)))
    return replace(
        told,
        sha256=found.sha256,
        state="is here and fits its network" if piece.network or piece.upscales else "is here",
    ), found


def check_fits(piece: Piece, found: Resolved) -> None:
    """Raise CheckpointError when a file is not its network's; what was fetched and is no weights at all is not kept."""
    try:
        if piece.network is not None:
            load_network(piece.network, found.path)
        elif piece.upscales:
            load_upscaler(read_state(found.path), TILE + 2 * MARGIN, str(found.path))
        elif piece.sha256 is None:
            read_state(found.path)
    except CheckpointError as error:
        # a misfit may also be the preset's mistake, or a package that is not installed: then the file is a good one
        if not is_weights(found.path) and weights.discard(found):
            raise CheckpointError(f"{error}; it was removed from the cache") from error
        raise


def is_weights(path: Path) -> bool:
    """Whether a file holds weights, of whatever network."""
    try:
        read_state(path)
    except CheckpointError:
        return False
    return True


def check(told: Told, piece: Piece, config: ModelsConfig) -> Iterator[Told]:
    """Compare every copy of a file with the digest that it must have."""
    copies = list(weights.copies(piece.file, piece.url, config.weights_dir))
    if not copies:
        yield replace(told, state="is nowhere on this machine", good=not config.models)
    for one in (with_copy(told, copy) for copy in copies):
        try:
            yield compare(one, piece)
        except FAILURES as error:
            yield replace(one, state=str(error), good=False)


def compare(told: Told, piece: Piece) -> Told:
    """A copy with its digest, and what that means."""
    uri = str(told.uri)
    digest, recorded = weights.digest_of(uri), weights.recorded(uri)
    wanted, by = (piece.sha256.lower(), "the preset") if piece.sha256 else (recorded, "its record")
    if wanted is None:
        state = "no digest is known to compare with"
    elif wanted == digest:
        state = f"as {by} says"
    else:
        state = f"damaged or another file: {by} says sha256 {wanted}; delete it and fetch or mirror it again"
    return replace(told, sha256=digest, state=state, good=wanted in (None, digest))


DEEDS: Mapping[str, Callable[[Told, Piece, ModelsConfig], Iterator[Told]]] = {
    "list": look,
    "fetch": fetch,
    "mirror": mirror,
    "check": check,
}


def run(config: ModelsConfig) -> int:
    """Do what is asked for every file, and say how it went. Returns the exit code."""
    models = [find_model(name) for name in config.models or known_models()]
    if config.weights_dir:
        store.check_readable(store.absolute(config.weights_dir))
    if config.to:
        store.check_writable(store.absolute(config.to).rstrip("/"))
    told: list[Told] = []
    for model, piece in pieces(models, once=config.deed != "list"):
        for one in DEEDS[config.deed](about(model, piece), piece, config):
            told.append(one)
            if config.json != "-" and config.deed != "list":
                print("\n".join(sentence(one)), flush=True)
    if config.json != "-" and config.deed == "list":
        print("\n".join(table(told)))
    code = DONE if all(one.good for one in told) else WRONG
    if config.to:
        mirror_presets(config)
    write_json(config, told, code)
    return code


def pieces(models: Sequence[Model], once: bool) -> Iterator[tuple[Model, Piece]]:
    """Every file of every model; `once`: one that several share with the first of them alone."""
    seen: set[tuple[str, str | None, str | None]] = set()
    for model in models:
        for piece in model.pieces:
            identity = (piece.file, piece.url, piece.sha256)
            if not (once and identity in seen):
                yield model, piece
            seen.add(identity)


def mirror_presets(config: ModelsConfig) -> None:
    """Copy presets of one's own beside their files. Raises UsageError when another one has the name."""
    to = store.absolute(config.to or "")
    for name in config.models:
        if name in known_models():
            continue
        path = Path(name).expanduser()
        uri, data = store.join(to, path.name), path.read_bytes()
        if store.exists(uri) and store.read_bytes(uri) != data:
            raise UsageError(
                f"{uri} is another preset than {path}; mirror to another place, or delete it there first"
            )
        store.write_bytes(uri, data)


def write_json(config: ModelsConfig, told: Sequence[Told], code: int) -> None:
    """Everything that was told, for programs."""
    values = {"exit_code": code, "files": [asdict(one) for one in told]}
    if config.json == "-":
        print(json.dumps(values))
    elif config.json:
        store.write_bytes(config.json, json.dumps(values, indent=1).encode())


def table(told: Sequence[Told]) -> Iterator[str]:
    """Every file in a line, a model's name in the first of its own."""
    rows = [[name.upper() for name in COLUMNS]]
    for before, one in zip([None, *told], told, strict=False):
        head = [one.model, f"{one.side or '-'}", one.use]
        if before is not None and before.model == one.model:
            head = [""] * len(head)
        rows.append([*head, one.file, megabytes(one.size), one.found, one.licence])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def sentence(told: Told) -> Iterator[str]:
    """What became of one file."""
    yield f"{told.file} ({told.model}): {told.state if told.good else f'error: {told.state}'}"
    if told.sha256:
        yield f"  {told.found}, {megabytes(told.size)}, {told.uri}"
        yield f"  sha256 {told.sha256}"
        yield f"  licence: {told.licence}"


def megabytes(size: int | None) -> str:
    """A file's size for people."""
    return f"{size / 1e6:.1f} MB" if size is not None else "-"
