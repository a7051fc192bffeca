"""The paper's figures for one's own networks and faces: what the starting step N does to a face (Fig. 3), to the
estimator's error (Fig. 4), and what N and η do together. First the measurements, then their drawings.

Source: Yue & Loy, "DifFace" (arXiv 2212.06512). Errors are root mean squares over a face's pixels and channels, in
levels of 255: [-1, 1] of the diffusion spans 255 levels.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from pipeline.stages.sample import TILE_LARGEST, TILE_SMALLEST

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
class Walk:
    """A batch of faces diffused to a step N and led back: [B, 3, S, S] float32, in [-1, 1] but for the noise of x_n."""

    x_n: Tensor
    result: Tensor


@dataclass(frozen=True)
class Walker:
    """Diffuses faces to any of its steps and leads them back."""

    prior: NoisePredictor
    schedule: Schedule
    # starting step N → its chain
    chains: Mapping[int, Chain]
    device: str = "cpu"

    @torch.inference_mode()
    def __call__(self, faces: Tensor, keys: list[NoiseKey], step: int, eta: float) -> Walk:
        """Of equal keys the noise is equal, in x_N and at every step: what differs later differed in the faces."""
        noise = face_noise(keys, faces.shape[-1], self.device)
        x_n = enter_chain(faces.to(self.device), self.schedule, self.chains[step], noise(DRAW_X_N))
        result = reverse_chain(x_n, self.prior, self.schedule, self.chains[step], eta, noise)
        return Walk(x_n.cpu(), result.cpu())


@dataclass(frozen=True)
class Contraction:
    """What the diffusion and its way back make of the estimator's error e, for K steps N and F faces.

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


def measure_contraction(batches: Sequence[Faces], walker: Walker, eta: float) -> Contraction:
    """Walk from the truth and from the estimate with the same noise, at every step."""
    before, after, restored = (np.empty((len(walker.chains), 0)) for _ in range(3))
    for faces in batches:
        found = np.array([_distances(faces, walker, eta, step) for step in walker.chains])
        before, after, restored = (
            np.concatenate([sofar, found[:, i]], axis=1) for i, sofar in enumerate((before, after, restored))
        )
    ab = walker.schedule.ab[[chain.start for chain in walker.chains.values()]]
    errors = [rms(to_signed(faces.estimated), to_signed(faces.truth)) for faces in batches]
    return Contraction(
        np.array(list(walker.chains)), np.sqrt(ab), contraction(ab), np.concatenate(errors),
        before, after, restored,
    )  # fmt: skip


def _distances(faces: Faces, walker: Walker, eta: float, step: int) -> tuple[Numbers, Numbers, Numbers]:
    """Of one batch at one step: Contraction's before, after and restored, [B] each."""
    of_truth = walker(faces.truth, faces.keys, step, eta)
    of_estimate = walker(faces.estimated, faces.keys, step, eta)
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
    """One face on a sheet: what stands at the left by its captions, and rows of pictures, each with its name."""

    given: Mapping[str, Pixels]
    rows: list[tuple[str, list[Pixels]]]


def diffuse_and_reconstruct(faces: Faces, walker: Walker, eta: float) -> list[Block]:
    """A block per face: x_N and what the chain makes of it, begun at the face itself and at its estimate (Fig. 3)."""
    rows = []
    for name, begun_at in (("clean", faces.truth), ("estimate", faces.estimated)):
        walks = [walker(begun_at, faces.keys, step, eta) for step in walker.chains]
        rows += [(f"{name}, diffused", [w.x_n for w in walks]), ("and led back", [w.result for w in walks])]
    return _blocks(faces, rows)


def restoration_grid(faces: Faces, walker: Walker, etas: Sequence[float]) -> list[Block]:
    """A block per face: the restored estimate, a row for each η, a picture in it for each N."""
    rows = [
        (f"η = {eta:g}", [walker(faces.estimated, faces.keys, step, eta).result for step in walker.chains])
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
    """What is known of each face before any chain, by its caption."""
    parts = {"clean": faces.truth, "degraded": faces.degraded, "estimate": faces.estimated}
    return [{name: to_picture(part[i]) for name, part in parts.items()} for i in range(len(faces.keys))]


class _Sheet:
    """The measures of a sheet of pictures, in pixels, and its drawing."""

    ground, ink, faint, accent = (250, 250, 248), "#1c1e22", "#6e7278", "#b8763e"
    dpi, margin, gap, gutter, label, heading = 100, 24, 4, 22, 140, 108
    # what the title and the line below it take
    narrowest = 1000

    def __init__(self, side: int) -> None:
        self.tile = min(max(side, TILE_SMALLEST), TILE_LARGEST)
        self.pitch = self.tile + self.gap
        self.first = self.margin + self.pitch + self.label

    def draw(
        self, title: str, below: str, steps: Sequence[int], marked: int, blocks: Sequence[Block]
    ) -> bytes:
        heights = [max(len(b.rows), len(b.given)) * self.pitch for b in blocks]
        width = max(self.first + len(steps) * self.pitch + self.margin, self.narrowest)
        height = self.heading + sum(heights) + (len(blocks) - 1) * self.gutter + self.margin
        figure, axes = _canvas(width, height, self.dpi)
        sheet = np.full((height, width, 3), self.ground, np.uint8)
        self._text(axes, self.margin, 34, title, 19, weight="bold")
        self._text(axes, self.margin, 62, below, 13, color=self.faint)
        for i, step in enumerate(steps):
            of_preset = {"color": self.accent, "weight": "bold"} if step == marked else {}
            middle = self.first + i * self.pitch + self.tile / 2
            self._text(axes, middle, self.heading - 9, f"N = {step}", 14, ha="center", **of_preset)
        top = self.heading
        for block, tall in zip(blocks, heights, strict=True):
            self._draw_block(sheet, axes, block, top)
            top += tall + self.gutter
        axes.imshow(sheet, extent=(0, width, height, 0), interpolation="nearest")
        return _png(figure)

    def _draw_block(self, sheet: Pixels, axes: Any, block: Block, top: int) -> None:
        for row, (caption, picture) in enumerate(block.given.items()):
            y = top + row * self.pitch
            self._put(sheet, picture, self.margin, y)
            box = {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 2.5}
            self._text(axes, self.margin + 6, y + self.tile - 8, caption, 12, color="white", bbox=box)
        for row, (name, pictures) in enumerate(block.rows):
            y = top + row * self.pitch
            self._text(axes, self.first - 10, y + self.tile / 2 + 5, name, 13, ha="right")
            for column, picture in enumerate(pictures):
                self._put(sheet, picture, self.first + column * self.pitch, y)

    def _put(self, sheet: Pixels, picture: Pixels, x: int, y: int) -> None:
        sheet[y : y + self.tile, x : x + self.tile] = images.resize(picture, self.tile)

    def _text(self, axes: Any, x: float, y: float, text: str, pixels: float, **style: Any) -> None:
        # names of files are no formulas
        axes.text(
            x, y, text, fontsize=pixels * 72 / self.dpi, parse_math=False, **({"color": self.ink} | style)
        )


def draw_sheet(title: str, below: str, steps: Sequence[int], marked: int, blocks: Sequence[Block]) -> bytes:
    """PNG of the blocks under a title and a line below it, a column per step N; the step `marked` stands out.

    Tiles are as large as the faces, within the bounds of a run's contact sheet. Same pictures, same bytes.
    """
    side = len(next(iter(blocks[0].given.values())))
    return _Sheet(side).draw(title, below, steps, marked, blocks)


def draw_contraction(found: Contraction, schedule: Schedule, title: str, marked: int) -> bytes:
    """PNG of three panels over N: κ_N, the share of the error that is left, and errors in levels of 255 (Fig. 4).

    Lines without dots are formulas, dots are measured: means over the faces, in bands of the middle half of them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5.2), dpi=110, layout="constrained", facecolor="#ffffff")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, weight="bold")
    kappa, share, level = figure.subplots(1, 3)
    _draw_factors(kappa, share, found, schedule)
    _draw_levels(level, found)
    for axes in (kappa, share, level):
        axes.set_xlabel("starting step N", fontsize=11)
        axes.set_xlim(0, float(found.steps[-1]) * 1.04)
        if marked <= found.steps[-1]:
            axes.axvline(marked, color="#b9bcc0", linewidth=1, linestyle=":", zorder=0)
            axes.annotate(
                f" preset's N = {marked}", (marked, 0.015), xycoords=("data", "axes fraction"), fontsize=9,
                color="#6e7278",
            )  # fmt: skip
        axes.grid(color="#eceded", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=10)
        axes.legend(loc="upper right", frameon=False, fontsize=10)
    return _png(figure)


BEFORE, AFTER, RESTORED, FORMULA = "#4a7a8c", "#b8763e", "#7a5c8c", "#1c1e22"


def _draw_factors(kappa: Any, share: Any, found: Contraction, schedule: Schedule) -> None:
    """The two factors of the paper, and what was measured of them."""
    kept = (schedule.t > 0) & (schedule.t <= found.steps[-1])
    t, ab = schedule.t[kept], schedule.ab[kept]
    kappa.set_title("κ: what the squared error weighs in the divergence", loc="left", fontsize=12)
    kappa.semilogy(t, contraction(ab), color=FORMULA, label="ᾱ / (1 - ᾱ)")
    spread = np.sqrt(1 - found.sqrt_ab**2)[:, None]
    with np.errstate(invalid="ignore"):  # an estimate without error has no share of it left
        left = (found.before / spread / found.error) ** 2
        shares = {BEFORE: found.before / found.error, AFTER: found.after / found.error}
    kappa.plot(found.steps, np.nanmean(left, axis=1), "o", color=BEFORE, label="measured in x_N")
    share.set_title("share of the estimator's error left", loc="left", fontsize=12)
    share.plot(t, np.sqrt(ab), color=FORMULA, label="sqrt(ᾱ)")
    share.plot(
        found.steps, np.nanmean(shares[BEFORE], axis=1), "o", color=BEFORE, label="before the chain, in x_N"
    )
    _draw_band(share, found.steps, shares[AFTER], AFTER, "after the chain, in its result")
    share.set_ylim(bottom=0)


def _draw_levels(axes: Any, found: Contraction) -> None:
    axes.set_title(f"error, levels of 255, of {len(found.error)} faces", loc="left", fontsize=12)
    axes.axhline(found.error.mean(), color=FORMULA, linestyle="--", label="estimate to clean face")
    _draw_band(axes, found.steps, found.restored, RESTORED, "restored to clean face")
    _draw_band(axes, found.steps, found.after, AFTER, "restored to clean face led back likewise")
    _draw_band(axes, found.steps, found.before, BEFORE, "those two at x_N, before the chain")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend


def _draw_band(axes: Any, steps: NDArray[np.int64], values: Numbers, colour: str, name: str) -> None:
    """values: [K, F]; their means, and the band of the middle half."""
    low, high = np.nanquantile(values, [0.25, 0.75], axis=1)
    axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(steps, np.nanmean(values, axis=1), "o-", color=colour, markersize=5, label=name)


def _canvas(width: int, height: int, dpi: int) -> tuple[Any, Any]:
    """A figure of so many pixels, and axes that fill it, in pixels from its upper left corner."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
