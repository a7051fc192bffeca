"""A preset's table of treatments, measured on photographs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from pipeline.console.commands import OK, say
from pipeline.console.options import UsageError, option
from pipeline.console.progress import Progress
from pipeline.datasets.faces import PHOTOGRAPHS, FaceAddress, find_faces, spread
from pipeline.evaluation.calibration import ESTIMATOR, LEFT, Bin, Bounds, Candidate, Numbers, choose, table
from pipeline.evaluation.gate_fit import Restored, chosen, draw_gates, fit_gates
from pipeline.evaluation.realworld import Pixels
from pipeline.evaluation.spread_fit import Sampled, describe_spread, draw_spread, fit_spread
from pipeline.evaluation.trial import Sample, Trial
from pipeline.io import images, store
from pipeline.networks.preset_text import gate_lines, table_lines, treatment_lines
from pipeline.networks.presets import find_preset
from pipeline.records.fingerprint import fingerprint_digest
from pipeline.reporting.sheet import Card, Group, Line, Row, draw_sheet, tile_side
from pipeline.restoration.config import BLIND_PRESET

# Photographs on the sheet to look at.
SHOWN = 40
# Restored faces from which gates are fitted.
LEAST_FACES = 24
# N 300 held at σ 3 has even less LPIPS for the worst faces, but begins to invent: glasses, for one.
CHAINS = "60:1:1:.1,100:2:1:.1,152:2:1.5:.15,152:3:1:.1,152:3:1.5:.15,200:3:1.5:.15,252:3:2:.2,252:4:1.5:.15,252:4:2:.2"


@dataclass(frozen=True)
class CalibrateConfig:
    """One calibration."""

    faces: str = option(
        help="photographs that the networks were not trained on: tar shards, a folder, or 'FOLDER/val-*.tar'",
        group="what",
        metavar="PATH_OR_URI",
    )
    output: str = option(
        help="folder or prefix for table, numbers and pictures", group="what", metavar="PATH_OR_URI"
    )
    fit: Literal["treatments", "error"] = option(
        "treatments",
        help="treatments: the preset's table, gates and spread; error: what predicts the error of a face, and whether "
        "a table by the prediction is better than one by δ",
        group="what",
    )
    preset: str = option(BLIND_PRESET, help="preset whose networks are measured", group="what")
    chains: str = option(
        CHAINS,
        help="chains to try, N:CALLS:SIGMA or N:CALLS:SIGMA:ETA separated by commas",
        group="what",
        metavar="CHAINS",
    )
    limit: int = option(0, help="only the first so many photographs; 0 takes all", group="what")
    apart_from: int = option(
        0,
        help="leave out the photographs that jobs.evaluate --limit N takes, so that its scores know nothing of the fit",
        group="what",
        metavar="N",
    )
    draws: int = option(1, help="degrees of damage drawn for each photograph", group="what")
    seed: int = option(0, help="seed of damage and noise", group="what")
    samples: int = option(
        4,
        help="chains of each face for the fit of [spread], as --samples of jobs.restore; 1 fits none",
        group="fit",
    )
    others: str | None = option(
        None,
        help="with --fit error: photographs of another collection, on which the fit is tested, as --faces",
        group="fit",
        metavar="PATH_OR_URI",
    )
    treated: int = option(
        100,
        help="with --fit error: photographs that are also restored by every treatment of the preset's table; 0 none, "
        "which is quick",
        group="fit",
        metavar="N",
    )
    weights_dir: str | None = option(
        None, help="folder or s3:// prefix searched for weights first", group="what"
    )
    each: int = option(16, help="faces of one bin of the fit", group="fit")
    psnr_loss: float = option(
        Bounds.psnr_loss, help="mean PSNR that a chain may lose against the estimator, dB", group="fit"
    )
    angle_loss: float = option(
        Bounds.angle_loss, help="mean identity angle that it may lose, degrees", group="fit"
    )
    harm: float = option(
        Bounds.harm, help="share of faces that may be delivered worse than they came in anything", group="fit"
    )
    harm_lpips: float = option(Bounds.harm_lpips, help="the same in LPIPS", group="fit")
    harm_slight: float = option(
        Bounds.harm_slight, help="the same in anything, of faces that can win little", group="fit"
    )

    def __post_init__(self) -> None:
        if min(self.limit, self.apart_from, self.seed, self.treated) < 0:
            raise UsageError("--limit, --apart-from, --seed and --treated must not be negative")
        if min(self.draws, self.each, self.samples) < 1:
            raise UsageError("--draws, --each and --samples must be at least 1")
        try:
            self.candidates  # noqa: B018 (evaluated for what it raises)
        except ValueError as error:
            raise UsageError(
                f"--chains must be N:CALLS:SIGMA or N:CALLS:SIGMA:ETA separated by commas, got {self.chains!r}"
            ) from error

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Everything that is tried."""
        return (LEFT, ESTIMATOR, *(Candidate.parse(text) for text in self.chains.split(",")))

    @property
    def other_collection(self) -> "CalibrateConfig":
        """The measurement of --others, of which nothing is fitted."""
        return replace(self, faces=self.others or "", treated=0)

    @property
    def bounds(self) -> Bounds:
        """What a treatment may cost."""
        return Bounds(self.psnr_loss, self.angle_loss, self.harm_lpips, self.harm, self.harm_slight)


def choose_photographs(config: CalibrateConfig) -> list[tuple[int, FaceAddress]]:
    """The photographs with their numbers, but for those that are kept for scores."""
    found = find_faces(config.faces, PHOTOGRAPHS).faces
    kept = set(spread(found, config.apart_from)) if config.apart_from else set()
    left = [(number, face) for number, face in enumerate(found) if face not in kept]
    if not left:
        raise UsageError(f"--apart-from {config.apart_from} leaves none of {len(found)} photographs")
    return left[: config.limit or len(left)]


def samples_folder(config: CalibrateConfig) -> str:
    """Name of the folder of what was measured: named after what decides its numbers."""
    settings = {name: getattr(config, name) for name in ("faces", "preset", "draws", "seed")}
    return f"samples-{fingerprint_digest(settings)}"


def measure(config: CalibrateConfig, faces: Sequence[tuple[int, FaceAddress]], folder: str) -> None:
    """Measure the photographs that are not yet: each leaves NUMBER.json and NUMBER.png in the folder."""
    there = {entry.path for entry in store.list_files(folder)} if store.exists(folder) else set()
    pending = [
        (number, face)
        for number, face in faces
        if f"{number:06d}.json" not in there or not has_all(folder, number, config.candidates)
    ]
    if not pending:
        return
    say(f"{len(faces)} photographs, {config.draws} draws, {len(config.candidates)} treatments of each")
    trial = Trial(find_preset(config.preset), config.candidates, config.seed, config.weights_dir)
    if trial.scorer.left_out:
        reasons = "; ".join(f"{name}: {why}" for name, why in trial.scorer.left_out.items())
        raise UsageError(f"a fit wants PSNR, SSIM, LPIPS and identity, but {reasons}")
    with closing(trial), Progress(len(faces), len(faces) - len(pending)) as progress:
        for number, face in pending:
            samples = list(trial.samples(number, face, config.draws))
            rows = [row for turn, sample in enumerate(samples) for row in rows_of(sample, turn)]
            if samples:
                store.write_bytes(
                    store.join(folder, f"{number:06d}.png"), draw_column(config.candidates, samples[0])
                )
            store.write_bytes(store.join(folder, f"{number:06d}.json"), json.dumps(rows).encode())
            progress.add(1, len(samples), 0)


def has_all(folder: str, number: int, candidates: Sequence[Candidate]) -> bool:
    """Whether a photograph was measured with every one of the candidates, its embeddings too, or shows no face."""
    rows = json.loads(store.read_bytes(store.join(folder, f"{number:06d}.json")))
    return not rows or all(any(is_of(row, c) and "embedding" in row for row in rows) for c in candidates)


def is_of(row: Mapping[str, object], candidate: Candidate) -> bool:
    """Whether a row was measured of this candidate."""
    return all(row.get(name) == value for name, value in asdict(candidate).items())


def rows_of(sample: Sample, turn: int) -> Iterator[dict[str, object]]:
    """A sample's rows: one a candidate."""
    for candidate, values in sample.measured.items():
        judged = {
            "gates": dict(sample.gates.get(candidate, {})),
            "embedding": sample.embeddings[candidate].round(5).tolist(),
        }
        yield {"turn": turn, "delta": sample.delta, **asdict(candidate), **values, **judged}


def draw_column(candidates: Sequence[Candidate], sample: Sample) -> bytes:
    """PNG: the face as every candidate delivers it, in their order, and last the truth, below each other."""
    return images.encode_png(np.concatenate([*(sample.pictures[c] for c in candidates), sample.truth]))


def draw_treatments(
    folder: str, numbers: Sequence[int], delta: Numbers, candidates: Sequence[Candidate]
) -> bytes:
    """PNG of some photographs' first draws by rising δ: a row for each candidate, and last the truth.

    numbers: the photograph of each sample, of which the first is its first draw. delta: [F], of each sample.
    """
    _, first = np.unique(numbers, return_index=True)
    risen = first[np.argsort(delta[first], kind="stable")]
    shown = risen[np.linspace(0, len(risen) - 1, min(SHOWN, len(risen))).astype(int)]
    columns = [read_column(folder, numbers[i]) for i in shown]
    rows = [
        Row([Card([pictures.get(c) for pictures in columns])], "truth" if c is None else c.name)
        for c in (*candidates, None)
    ]
    side = tile_side(len(picture) for pictures in columns for picture in pictures.values())
    group = Group(rows, [Line(f"δ {delta[i]:.2f}") for i in shown])
    return images.encode_png(draw_sheet("Every treatment of some faces, by rising δ", [[group]], side))


def read_column(folder: str, number: int) -> dict[Candidate | None, Pixels]:
    """A photograph's face as each candidate that was measured delivers it; None: the truth."""
    rows = json.loads(store.read_bytes(store.join(folder, f"{number:06d}.json")))
    names = [field.name for field in fields(Candidate)]
    measured = (Candidate(**{name: row[name] for name in names}) for row in rows if row["turn"] == 0)
    order = [*measured, None]
    column = images.decode_rgb(store.read_bytes(store.join(folder, f"{number:06d}.png")))
    return dict(zip(order, np.split(column, len(order)), strict=True))


def read_samples(
    folder: str, numbers: Sequence[int], candidates: Sequence[Candidate]
) -> tuple[Numbers, dict[Candidate, dict[str, Numbers]], list[int]]:
    """δ of every sample, of every candidate column → [F], and the photograph's number of each sample."""
    names = ("psnr", "angle", "lpips", "ssim")
    found = {n: json.loads(store.read_bytes(store.join(folder, f"{n:06d}.json"))) for n in numbers}
    by_candidate, delta, places = {}, np.empty(0), list[int]()
    for candidate in candidates:
        rows = [(n, row) for n, rows in found.items() for row in rows if is_of(row, candidate)]
        by_candidate[candidate] = {
            m: np.array([r.get(m, np.nan) for _, r in rows], np.float64) for m in names
        }
        delta, places = np.array([r["delta"] for _, r in rows], np.float64), [n for n, _ in rows]
    return delta, by_candidate, places


def read_restored(folder: str, numbers: Sequence[int], bins: Sequence[Bin]) -> list[Restored]:
    """Every sample that the fitted table restores, with what the gates measure of it."""
    found = []
    for number in numbers:
        rows = json.loads(store.read_bytes(store.join(folder, f"{number:06d}.json")))
        came = {row["turn"]: np.array(row["embedding"]) for row in rows if is_of(row, LEFT)}
        for row in rows:
            what = chosen(row["delta"], bins)
            if what != LEFT and is_of(row, what):
                embedding = np.array(row["embedding"])
                found.append(Restored(row["delta"], number, row["gates"], came[row["turn"]], embedding))
    return found


def spread_folder(config: CalibrateConfig, rows: Sequence[Mapping[str, Any]]) -> str:
    """Name of the folder of what was measured of several chains a face by these [[treatment]] rows."""
    settings = {"samples": config.samples, "treatment": list(rows), "of": samples_folder(config)}
    return f"spread-{fingerprint_digest(settings)}"


def measure_spread(
    config: CalibrateConfig, faces: Sequence[tuple[int, FaceAddress]], rows: Sequence[Mapping[str, Any]]
) -> list[Sampled]:
    """Every face that the fitted table restores by a chain, by several; what is measured already is read again."""
    folder = store.join(config.output, spread_folder(config, rows))
    there = {entry.path for entry in store.list_files(folder)} if store.exists(folder) else set()
    pending = [(number, face) for number, face in faces if f"{number:06d}.json" not in there]
    if pending:
        say(f"{len(pending)} photographs by {config.samples} chains each")
        trial = Trial(find_preset(config.preset), (), config.seed, config.weights_dir)
        with closing(trial), Progress(len(faces), len(faces) - len(pending)) as progress:
            for number, face in pending:
                found = list(trial.sampled(number, face, config.draws, rows, config.samples))
                data = json.dumps([asdict(sampled) for sampled in found]).encode()
                store.write_bytes(store.join(folder, f"{number:06d}.json"), data)
                progress.add(1, len(found), 0)
    texts = [store.read_bytes(store.join(folder, f"{number:06d}.json")) for number, _ in faces]
    return [Sampled(**values) for text in texts for values in json.loads(text)]


def describe(bins: Sequence[Bin]) -> str:
    """What was chosen and what it brings, for people: a table in Markdown."""
    head = "| δ | faces | chosen | PSNR in → out | angle in → out | LPIPS in → estimator → out | worse: LPIPS, any |"
    lines = [head, "|---" * 7 + "|"]
    for b in bins:
        came, alone, out = (b.stats[c] for c in (LEFT, ESTIMATOR, b.chosen))
        lines.append(
            f"| {b.least:.2f} - {b.most:.2f} | {b.faces} | {b.chosen.name} "
            f"| {came['psnr']:.2f} → {out['psnr']:.2f} | {came['angle']:.1f} → {out['angle']:.1f} "
            f"| {came['lpips']:.3f} → {alone['lpips']:.3f} → {out['lpips']:.3f} "
            f"| {out['harm_lpips']:.0%}, {out['harm_any']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def calibrate(config: CalibrateConfig) -> int:
    """Measure what is not measured yet, fit, write. Returns the exit code."""
    store.check_writable(config.output)
    faces = choose_photographs(config)
    folder = store.join(config.output, samples_folder(config))
    measure(config, faces, folder)
    delta, by_candidate, places = read_samples(folder, [n for n, _ in faces], config.candidates)
    if not len(delta):
        raise UsageError(f"none of {len(faces)} photographs shows a face that can be measured")
    store.write_bytes(
        store.join(config.output, "faces.png"), draw_treatments(folder, places, delta, config.candidates)
    )
    bins = choose(delta, by_candidate, config.each, config.bounds)
    text = "\n".join(treatment_lines(table(bins))).strip() + "\n"
    described = describe(bins) + "\nbounds: " + json.dumps(asdict(config.bounds)) + "\n"
    store.write_bytes(store.join(config.output, "treatment.toml"), text.encode())
    store.write_bytes(store.join(config.output, "treatment.md"), described.encode())
    restored = read_restored(folder, [n for n, _ in faces], bins)
    if len(restored) >= LEAST_FACES:
        tables = fit_gates(restored)
        text += "\n".join(gate_lines(tables)) + "\n"
        store.write_bytes(store.join(config.output, "gates.png"), draw_gates(restored, tables))
        store.write_bytes(store.join(config.output, "treatment.toml"), text.encode())
    else:
        say(
            f"warning: gates are fitted to {LEAST_FACES} restored faces at least, and there are {len(restored)}"
        )
    if config.samples > 1 and (sampled := measure_spread(config, faces, table(bins))):
        bound = fit_spread(sampled)
        described += "\n" + describe_spread(sampled, bound)
        if bound is not None:
            text += "\n".join(table_lines("spread", {"invented": bound})) + "\n"
        store.write_bytes(store.join(config.output, "spread.png"), draw_spread(sampled, bound))
        store.write_bytes(store.join(config.output, "treatment.md"), described.encode())
        store.write_bytes(store.join(config.output, "treatment.toml"), text.encode())
    print(f"{described}\n{text}")
    return OK
