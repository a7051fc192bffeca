"""The paper's figures for one's own networks and faces: what the starting step N does to a face (Fig. 3), to the
estimator's error (Fig. 4), and what N and η do together. First the measurements, then their drawings.

Source: Yue & Loy, "DifFace" (arXiv 2212.06512). Errors are root mean squares over a face's pixels and channels, in
levels of 255: [-1, 1] of the diffusion spans 255 levels.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.datasets.faces import to_picture
from pipeline.diffusion.difface import (
    NoisePredictor,
    enter_chain,
    face_noise,
    from_signed,
    reverse_chain,
    to_signed,
)
from pipeline.diffusion.noise import DRAW_X_N, NoiseKey
from pipeline.diffusion.schedule import Chain, Schedule, contraction
from pipeline.io import images
from pipeline.reporting import sheet
from pipeline.reporting.palette import INK, OCHRE, PURPLE, TEAL
from pipeline.reporting.plots import Figure, Panel

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float64]

# levels of 255 in one unit of [-1, 1]
LEVELS = 127.5


@dataclass(frozen=True)
class Faces:
    """A batch of faces known clean: [B, 3, S, S] float32 in [0, 1] each."""

    truth: Tensor
    degraded: Tensor
    # the estimator's guess at the truth, from `degraded`
    estimated: Tensor
    keys: list[NoiseKey]


@dataclass(frozen=True)
class Reconstruction:
    """Faces diffused to a step N and reconstructed: [B, 3, S, S] float32 each, in [-1, 1] but for the noise of x_n."""

    x_n: Tensor
    result: Tensor


@dataclass(frozen=True)
class Reconstructor:
    """Diffuses faces to any of its steps, and reconstructs them from there."""

    prior: NoisePredictor
    schedule: Schedule
    # starting step N → its chain
    chains: Mapping[int, Chain]
    device: str = "cpu"

    @torch.inference_mode()
    def __call__(self, faces: Tensor, keys: list[NoiseKey], step: int, eta: float) -> Reconstruction:
        """Of equal keys the noise is equal, in x_N and at every step: what differs later differed in the faces."""
        noise = face_noise(keys, faces.shape[-1], self.device)
        x_n = enter_chain(faces.to(self.device), self.schedule, self.chains[step], noise(DRAW_X_N))
        result = reverse_chain(x_n, self.prior, self.schedule, self.chains[step], eta, noise)
        return Reconstruction(x_n.cpu(), result.cpu())


@dataclass(frozen=True)
class Contraction:
    """What the diffusion and the reverse chain make of the estimator's error e, for K steps N and F faces.

    The faces x_0 and their estimates x_0 + e are diffused with the same noise, so that (Eq. 11)
        x_N of the estimate - x_N of the truth = sqrt(ᾱ_N) e,
    and two Gaussians of variance 1 - ᾱ_N lie that far apart: KL = κ_N/2 ‖e‖², κ_N = ᾱ_N / (1 - ᾱ_N)  (Eqs. 12-13).
    """

    # [K]
    steps: NDArray[np.int64]
    sqrt_ab: Numbers
    kappa: Numbers
    # [F] the error of the estimate
    error: Numbers
    # [K, F] distance of the two x_N: sqrt(ᾱ_N) times the error, but for rounding
    before: Numbers
    # [K, F] distance of what the chain makes of the two: what it leaves of the error
    after: Numbers
    # [K, F] distance of the chain's result of the estimate from the face itself
    restored: Numbers

    def rows(self) -> list[dict[str, float]]:
        """One row per step, means over the faces."""
        error = float(self.error.mean())
        return [
            {
                "N": int(self.steps[k]),
                "sqrt_ab": float(self.sqrt_ab[k]),
                "kappa": float(self.kappa[k]),
                "error_estimate": error,
                "error_before_formula": float(self.sqrt_ab[k]) * error,
                "error_before": float(self.before[k].mean()),
                "error_after": float(self.after[k].mean()),
                "error_restored": float(self.restored[k].mean()),
            }
            for k in range(len(self.steps))
        ]


def rms(a: Tensor, b: Tensor) -> Numbers:
    """[B, 3, S, S] twice, in the diffusion's scale → [B] distances in levels of 255."""
    distance: Numbers = ((a - b).double().square().mean((1, 2, 3)).sqrt() * LEVELS).numpy()
    return distance


def measure_contraction(batches: Sequence[Faces], reconstruct: Reconstructor, eta: float) -> Contraction:
    """Reconstruct the truth and the estimate with the same noise, from every step."""
    before, after, restored = (np.empty((len(reconstruct.chains), 0)) for _ in range(3))
    for faces in batches:
        found = np.array([_distances(faces, reconstruct, eta, step) for step in reconstruct.chains])
        before, after, restored = (
            np.concatenate([sofar, found[:, i]], axis=1) for i, sofar in enumerate((before, after, restored))
        )
    ab = reconstruct.schedule.ab[[chain.start for chain in reconstruct.chains.values()]]
    errors = [rms(to_signed(faces.estimated), to_signed(faces.truth)) for faces in batches]
    return Contraction(
        np.array(list(reconstruct.chains)), np.sqrt(ab), contraction(ab), np.concatenate(errors),
        before, after, restored,
    )  # fmt: skip


def _distances(
    faces: Faces, reconstruct: Reconstructor, eta: float, step: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Of one batch at one step: Contraction's before, after and restored, [B] each."""
    of_truth = reconstruct(faces.truth, faces.keys, step, eta)
    of_estimate = reconstruct(faces.estimated, faces.keys, step, eta)
    return (
        rms(of_estimate.x_n, of_truth.x_n),
        rms(of_estimate.result, of_truth.result),
        rms(of_estimate.result, to_signed(faces.truth)),
    )


def contraction_csv(found: Contraction) -> bytes:
    """The curves as a table: one line per step, six digits."""
    rows = found.rows()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows[0])
    table.writerows([f"{value:.6g}" for value in row.values()] for row in rows)
    return text.getvalue().encode()


@dataclass(frozen=True)
class Block:
    """One face on a sheet: pictures by their names, set at the left, and rows of pictures, each with its name."""

    given: Mapping[str, Pixels]
    rows: list[tuple[str, list[Pixels]]]


def diffuse_and_reconstruct(faces: Faces, reconstruct: Reconstructor, eta: float) -> list[Block]:
    """A block per face: x_N and what the chain makes of it, from the face itself and from its estimate (Fig. 3)."""
    rows = []
    for name, started_at in (("clean", faces.truth), ("estimate", faces.estimated)):
        results = [reconstruct(started_at, faces.keys, step, eta) for step in reconstruct.chains]
        rows += [
            (f"{name}, diffused", [r.x_n for r in results]),
            ("reconstructed", [r.result for r in results]),
        ]
    return _blocks(faces, rows)


def restoration_grid(faces: Faces, reconstruct: Reconstructor, etas: Sequence[float]) -> list[Block]:
    """A block per face: the restored estimate, a row for each η, a picture in it for each N."""
    rows = [
        (
            f"η = {eta:g}",
            [reconstruct(faces.estimated, faces.keys, step, eta).result for step in reconstruct.chains],
        )
        for eta in etas
    ]
    return _blocks(faces, rows)


def _blocks(faces: Faces, rows: Sequence[tuple[str, Sequence[Tensor]]]) -> list[Block]:
    """Rows of batches [B, 3, S, S] in [-1, 1] → a block for each of the B faces."""
    given = _given(faces)
    return [
        Block(given[i], [(name, [to_picture(from_signed(batch[i])) for batch in row]) for name, row in rows])
        for i in range(len(faces.keys))
    ]


def _given(faces: Faces) -> list[dict[str, Pixels]]:
    """What is known of each face before any chain, by its name."""
    parts = {"clean": faces.truth, "degraded": faces.degraded, "estimate": faces.estimated}
    return [{name: to_picture(part[i]) for name, part in parts.items()} for i in range(len(faces.keys))]


def draw_sheet(title: str, below: str, steps: Sequence[int], marked: int, blocks: Sequence[Block]) -> bytes:
    """PNG of the blocks under a title and a line below it, a column per step N; the step `marked` stands out.

    Tiles are as large as the faces, within the bounds of a run's contact sheet. Same pictures, same bytes.
    """
    side = sheet.tile_side(len(picture) for picture in blocks[0].given.values())
    columns = [
        sheet.Line(f"N = {step}", OCHRE, bold=True) if step == marked else sheet.Line(f"N = {step}")
        for step in steps
    ]
    bands = []
    for number, block in enumerate(blocks):
        given = [sheet.Row([sheet.Card([picture])], name) for name, picture in block.given.items()]
        rows = [sheet.Row([sheet.Card(pictures)], name) for name, pictures in block.rows]
        # the steps are named once, above the first face
        bands.append([sheet.Group(given), sheet.Group(rows, columns if number == 0 else [])])
    return images.encode_png(sheet.draw_sheet(title, bands, side, below))


def draw_contraction(found: Contraction, schedule: Schedule, title: str, marked: int) -> bytes:
    """PNG of three panels over N: κ_N, the share of the error that is left, and errors in levels of 255 (Fig. 4).

    Lines without dots are formulas, dots are measured: means over the faces, in bands of the middle half of them.
    """
    figure = Figure((15, 5.2), across=3, title=title)
    kappa, share, level = figure.panels
    _draw_factors(kappa, share, found, schedule)
    _draw_levels(level, found)
    for panel in figure.panels:
        panel.limits(x=(0, float(found.steps[-1]) * 1.04))
        if marked <= found.steps[-1]:
            panel.mark(marked, f"preset's N = {marked}")
        panel.legend()
    return figure.png()


STEP = "starting step N"
BEFORE, AFTER, RESTORED, FORMULA = TEAL, OCHRE, PURPLE, INK


def _draw_factors(kappa: Panel, share: Panel, found: Contraction, schedule: Schedule) -> None:
    """The two factors of the paper, and what was measured of them."""
    kept = (schedule.t > 0) & (schedule.t <= found.steps[-1])
    t, ab = schedule.t[kept], schedule.ab[kept]
    spread = np.sqrt(1 - found.sqrt_ab**2)[:, None]
    with np.errstate(invalid="ignore"):  # an estimate without error has no share of it left
        left = (found.before / spread / found.error) ** 2
        before, after = found.before / found.error, found.after / found.error
    kappa.title("κ: what the squared error weighs in the divergence", STEP)
    kappa.logarithmic()
    kappa.line(t, contraction(ab), FORMULA, "ᾱ / (1 - ᾱ)")
    kappa.line(found.steps, np.nanmean(left, axis=1), BEFORE, "measured in x_N", "o")
    share.title("share of the estimator's error left", STEP)
    share.line(t, np.sqrt(ab), FORMULA, "sqrt(ᾱ)")
    share.line(found.steps, np.nanmean(before, axis=1), BEFORE, "before the chain, in x_N", "o")
    _draw_band(share, found.steps, after, AFTER, "after the chain, in its result")
    share.limits(from_zero=True)


def _draw_levels(panel: Panel, found: Contraction) -> None:
    panel.title(f"error, levels of 255, of {len(found.error)} faces", STEP)
    panel.reference("y", float(found.error.mean()), FORMULA, "--", "estimate to clean face")
    _draw_band(panel, found.steps, found.restored, RESTORED, "restored to clean face")
    _draw_band(panel, found.steps, found.after, AFTER, "restored to reconstruction of the clean face")
    _draw_band(panel, found.steps, found.before, BEFORE, "those two at x_N, before the chain")
    panel.limits(from_zero=True, headroom=0.25)  # for the legend


def _draw_band(panel: Panel, steps: NDArray[np.int64], values: Numbers, colour: str, name: str) -> None:
    """values: [K, F]; their means, and the band of the middle half."""
    low, high = np.nanquantile(values, [0.25, 0.75], axis=1)
    panel.line(steps, np.nanmean(values, axis=1), colour, name, "o-", (low, high))
