"""The batched degradation: JPEG as libjpeg codes it, and errors of the same size as those of the face-by-face form."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from pipeline.datasets import degradation
from pipeline.datasets.degradation_batch import (
    AREA,
    CUBIC,
    LINEAR,
    BatchDegradation,
    degrade_batch,
    draw_portrait_degradations,
    from_paper,
)
from pipeline.datasets.jpeg_batch import jpeg_round_trip
from pipeline.evaluation import realworld

SIDE, COUNT = 128, 200
INTERPOLATIONS = {"linear": LINEAR, "cubic": CUBIC, "area": AREA}


def crops(count=COUNT, side=SIDE):
    """Pieces of scikit-image's photographs at several scales, [count, side, side, 3] uint8."""
    rng = np.random.default_rng(4)
    pictures = [data.astronaut(), data.coffee(), data.cat()]
    out = []
    for i in range(count):
        picture = pictures[i % 3]
        size = int(rng.integers(64, 290))
        top, left = (int(rng.integers(n - size)) for n in picture.shape[:2])
        piece = picture[top : top + size, left : left + size]
        out.append(cv2.resize(piece, (side, side), interpolation=cv2.INTER_AREA))
    return np.stack(out)


def tensor(faces):
    return torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).float()


def array(faces):
    return faces.permute(0, 2, 3, 1).numpy().astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / max(float(((a.astype(float) - b) ** 2).mean()), 1e-9))


def error_statistics(degraded, targets):
    """Mean absolute error and standard deviation of the error of each face, averaged over the faces."""
    error = degraded.astype(float) - targets
    return np.array([np.abs(error).mean(), error.std(axis=(1, 2, 3)).mean()])


def quiet(count, **changes):
    """A degradation of `count` faces that does nothing, with changes."""
    none, off = np.zeros(count), np.zeros(count, bool)
    whole = none.astype(np.int64)
    how = BatchDegradation(
        none, none, none, whole, none, none, whole + SIDE, whole, whole, none, off, none, whole, off, off
    )
    return replace(how, **changes)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("side", [128, 101, 40])
def test_jpeg_agrees_with_libjpeg(shared, side):
    faces = crops(24, side)
    qualities = np.linspace(30, 98, len(faces)).astype(np.int64)
    canvas = -(-side // 16) * 16
    padded = torch.zeros(len(faces), 3, canvas, canvas)
    padded[:, :, :side, :side] = tensor(faces)
    sides = torch.full((len(faces),), side)
    coded = array(jpeg_round_trip(padded, sides, qualities, np.full(len(faces), shared)))[:, :side, :side]
    theirs = [
        realworld.decode_jpeg(realworld.encode_jpeg(f, int(q), shared))
        for f, q in zip(faces, qualities, strict=True)
    ]
    agreement = [psnr(a, b) for a, b in zip(coded, theirs, strict=True)]
    assert np.mean(agreement) > 38 and min(agreement) > 36


def test_a_batch_that_is_not_degraded_comes_back_bit_for_bit():
    faces = tensor(crops(9))
    degraded, targets = degrade_batch(faces, quiet(9))
    assert torch.equal(degraded, faces) and torch.equal(targets, faces)


def test_blur_and_resizing_agree_with_opencv():
    faces = crops(12)
    resizings = [(down, up) for down in realworld.DOWN for up in realworld.UP for _ in range(2)]
    hows = [
        realworld.Damage(2, 1, 0.4, 1 + i / 3, down, up, 0, False, 0, 98, False)
        for i, (down, up) in enumerate(resizings)
    ]
    ours = array(degrade_batch(tensor(faces), replace(from_damages(hows), quality=np.zeros(12, int)))[0])
    for face, how, mine in zip(faces, hows, ours, strict=True):
        blurred = cv2.filter2D(
            face.astype(np.float32), -1, realworld.blur_kernel(how), borderType=cv2.BORDER_REFLECT_101
        )
        side = round(SIDE / how.shrink)
        small = cv2.resize(blurred, (side, side), interpolation=realworld.INTERPOLATIONS[how.down])
        small = np.clip(np.rint(small), 0, 255).astype(np.uint8)
        theirs = cv2.resize(small, (SIDE, SIDE), interpolation=realworld.INTERPOLATIONS[how.up])
        assert psnr(mine, theirs) > 50


def from_damages(hows):
    """realworld's damages as a batch."""
    columns = {name: np.array([getattr(how, name) for how in hows]) for name in (
        "blur", "blur_across", "angle", "noise", "grey_noise", "grain", "quality", "shared_chroma")}  # fmt: skip
    return quiet(
        len(hows),
        **columns,
        reach=np.array([int(np.ceil(3 * how.blur)) for how in hows]),
        side=np.array([max(round(SIDE / how.shrink), realworld.LEAST_SIDE) for how in hows]),
        down=np.array([INTERPOLATIONS[how.down] for how in hows]),
        up=np.array([INTERPOLATIONS[how.up] for how in hows]),
    )


def test_the_papers_degradation_has_the_statistics_of_the_form_for_single_faces():
    faces, rng = crops(), np.random.default_rng(6)
    hows = [degradation.draw_degradation(rng) for _ in faces]
    hows[3] = replace(hows[3], grey=True)
    singly = [degradation.degrade(f, how, rng) for f, how in zip(faces, hows, strict=True)]
    theirs = error_statistics(*(np.stack(part) for part in zip(*singly, strict=True)))
    degraded, targets = degrade_batch(tensor(faces), from_paper(hows, SIDE), torch.Generator().manual_seed(1))
    grey = np.stack([target for _, target in singly])
    np.testing.assert_allclose(array(targets).astype(int), grey, atol=1)
    np.testing.assert_allclose(error_statistics(array(degraded), array(targets)), theirs, rtol=0.03)


@pytest.mark.parametrize("level", ["slight", "mild", "medium", "heavy"])
def test_real_world_damage_has_the_statistics_of_the_form_for_single_faces(level):
    faces, rng = crops(), np.random.default_rng(7)
    hows = [realworld.draw_damage(realworld.LEVELS[level], rng) for _ in faces]
    singly = np.stack([realworld.damage(f, how, rng) for f, how in zip(faces, hows, strict=True)])
    ours = degrade_batch(tensor(faces), from_damages(hows), torch.Generator().manual_seed(1))[0]
    theirs = error_statistics(singly, faces)
    np.testing.assert_allclose(error_statistics(array(ours), faces), theirs, rtol=0.03)


def test_drawn_degradations_leave_some_faces_and_depend_on_the_seed_alone():
    faces = tensor(crops(120))
    how = draw_portrait_degradations(np.random.default_rng(2), 120, SIDE)
    one, again = (degrade_batch(faces, how, torch.Generator().manual_seed(5))[0] for _ in range(2))
    assert torch.equal(one, again)
    untouched = (one == faces).flatten(1).all(1).sum()
    assert 2 <= untouched <= 20
    assert how.side.min() >= 8 and how.quality.max() <= 98


def test_a_motion_blur_smears_along_its_own_direction():
    face = torch.zeros(1, 3, SIDE, SIDE)
    face[..., 64, 64] = 255
    moved, _ = degrade_batch(face, quiet(1, motion=np.array([9.0])))
    lit = moved[0, 0] > 0
    assert lit[64].sum() >= 9 and lit.sum() == lit[64].sum()
