"""What the figures measure, against closed forms; and that their drawings show what they are given."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.schedule import chain_from, linear_alphas_bar, make_schedule
from pipeline.evaluation import paper_figures
from pipeline.io import images

STEPS = (8, 100, 301, 481)
SPREAD = 0.2


def gaussian_prior():
    """ε of faces whose every value is normal, of mean 0 and standard deviation SPREAD: known in closed form."""
    ab = torch.from_numpy(linear_alphas_bar())

    def prior(x, t):
        of_t = ab[t][:, None, None, None]
        return ((1 - of_t).sqrt() / (of_t * SPREAD**2 + 1 - of_t) * x.double()).float()

    return prior


@pytest.fixture(scope="module")
def reconstruct():
    schedule = make_schedule("250")
    chains = {step: chain_from(schedule, step, "paper") for step in STEPS}
    return paper_figures.Reconstructor(gaussian_prior(), schedule, chains)


@pytest.fixture(scope="module")
def short(reconstruct):
    """Two short chains, for what only has to be drawn."""
    chains = {step: chain_from(reconstruct.schedule, step, calls=4) for step in (100, 301)}
    return paper_figures.Reconstructor(reconstruct.prior, reconstruct.schedule, chains)


@pytest.fixture(scope="module")
def faces():
    """Three faces of 8 px of the prior's kind, and estimates that miss them."""
    noise = torch.Generator().manual_seed(3)
    truth = 0.5 + 0.5 * SPREAD * torch.randn(3, 3, 8, 8, generator=noise)
    estimated = truth + 0.03 * torch.randn(3, 3, 8, 8, generator=noise)
    keys = [noise_key(0, f"{i:x}", 0) for i in range(3)]
    return paper_figures.Faces(truth, truth, estimated, keys)


@pytest.fixture(scope="module")
def found(reconstruct, faces):
    halves = [
        paper_figures.Faces(faces.truth[i:j], faces.degraded[i:j], faces.estimated[i:j], faces.keys[i:j])
        for i, j in ((0, 2), (2, 3))
    ]
    return paper_figures.measure_contraction(halves, reconstruct, eta=0.0)


def test_the_error_is_the_distance_of_estimate_and_face_in_levels(found, faces):
    off = 255 * (faces.estimated - faces.truth).double()
    assert np.allclose(found.error, off.square().mean((1, 2, 3)).sqrt(), rtol=1e-5)


def test_the_error_before_the_chain_is_the_estimators_times_the_root_of_alpha_bar(found):
    assert found.before.shape == (4, 3)
    assert np.allclose(found.before, found.sqrt_ab[:, None] * found.error, rtol=1e-4)


def test_kappa_falls_with_n_and_is_the_squared_distance_in_units_of_the_noise(found):
    assert (np.diff(found.kappa) < 0).all()
    assert found.kappa[1:3] == pytest.approx([8.54, 0.650], rel=0.02)  # the paper's, at 100 and 300
    in_noise = found.before**2 / (1 - found.sqrt_ab[:, None] ** 2)
    assert np.allclose(in_noise, found.kappa[:, None] * found.error**2, rtol=1e-4)


def test_the_error_after_the_chain_is_what_a_gaussian_prior_leaves_of_it(found):
    """The chain with η = 0 is linear there: it shrinks x_N by SPREAD / sqrt(ᾱ SPREAD² + 1 - ᾱ)."""
    ab = found.sqrt_ab**2
    shrunk = SPREAD / np.sqrt(ab * SPREAD**2 + 1 - ab)
    assert found.after.mean(axis=1) == pytest.approx(shrunk * found.before.mean(axis=1), rel=0.05)


def test_a_short_chain_keeps_the_estimate_and_a_long_one_leaves_it(found):
    assert np.allclose(found.after[0], found.error, rtol=0.1)
    assert (found.after[-1] < 0.2 * found.error).all()
    assert found.restored[0] == pytest.approx(found.error, rel=0.2)
    assert (found.restored[-1] > 2 * found.error).all()


def test_equal_faces_are_reconstructed_alike(short, faces):
    same = paper_figures.Faces(faces.truth, faces.degraded, faces.truth, faces.keys)
    found = paper_figures.measure_contraction([same], short, eta=1.0)
    assert not found.error.any() and not found.before.any() and not found.after.any()


def test_the_table_has_a_line_per_step(found):
    lines = paper_figures.contraction_csv(found).decode().splitlines()
    assert lines[0].startswith("N,sqrt_ab,kappa,error_estimate,error_before_formula,error_before,error_after")
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(STEPS)
    means = [float(line.split(",")[6]) for line in lines[1:]]
    assert means == pytest.approx(list(found.after.mean(axis=1)), rel=1e-4)


def test_the_curves_are_drawn_and_the_same_numbers_give_the_same_bytes(found, reconstruct):
    png = paper_figures.draw_contraction(found, reconstruct.schedule, "title", 301)
    assert Image.open(io.BytesIO(png)).size == (1650, 572)
    assert png == paper_figures.draw_contraction(found, reconstruct.schedule, "title", 301)


def test_a_sheet_holds_every_picture_of_every_row(short, faces):
    blocks = paper_figures.restoration_grid(faces, short, [0.0, 1.0])
    assert [len(b.rows) for b in blocks] == [2, 2, 2]
    assert [name for name, _ in blocks[0].rows] == ["η = 0", "η = 1"]
    png = paper_figures.draw_sheet("title", "below", list(short.chains), 301, blocks)
    sheet = Image.open(io.BytesIO(png)).convert("RGB").tobytes()
    for picture in (p for block in blocks for _, row in block.rows for p in row):
        assert images.resize(picture, 128)[64].tobytes() in sheet


def test_a_sheet_of_fig_3_starts_at_the_face_and_at_its_estimate(short, faces):
    block = paper_figures.diffuse_and_reconstruct(faces, short, eta=0.0)[1]
    assert [name for name, _ in block.rows] == [
        "clean, diffused", "reconstructed", "estimate, diffused", "reconstructed",
    ]  # fmt: skip
    assert list(block.given) == ["clean", "degraded", "estimate"]
    _, reconstructed = block.rows[1]
    assert len(reconstructed) == 2
    off = np.abs(reconstructed[0].astype(float) - block.given["clean"]).mean()
    assert off < np.abs(reconstructed[-1].astype(float) - block.given["clean"]).mean()
