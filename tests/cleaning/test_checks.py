"""The numbers of pictures made for it, and the verdicts that follow from them."""

import cv2
import numpy as np
import pyarrow as pa
import pytest
from photographs import encoded, portrait
from PIL import Image
from skimage import data

from pipeline.cleaning.assess import MISSING, measure_picture
from pipeline.cleaning.checks import Measures, measure, perceptual_hash
from pipeline.cleaning.policy import Policy
from pipeline.cleaning.verdicts import assign_verdicts
from pipeline.faces.detect import Face
from pipeline.stages.align import DetectorChoice

DETECTOR = DetectorChoice("centerface", None, None)
ASTRONAUT = np.ascontiguousarray(data.astronaut()[0:330, 60:400])


def numbers(picture: np.ndarray) -> dict:
    """What the stage measures of a picture."""
    return measure_picture(encoded(Image.fromarray(picture), "PNG"), DETECTOR, 64, 1 << 30)


def verdict_of(
    *rows: dict, policy: Policy | None = None, settled: tuple[int, ...] = ()
) -> list[tuple[str, str]]:
    """Verdict and reason of rows of measurements, over those of a good picture."""
    good = {**MISSING, "width": 200, "height": 220, "light": 0.9, "dark": 0.1, "entropy": 7.0, "faces": 1}
    good |= {"face_size": 80.0, "face_margin": 0.6, "face_score": 0.9, "face_scale": 2.0}
    good |= {"face_sharpness": 500.0, "face_crispness": 1.0}
    full = [
        good | {"length": 1, "sha256": str(i), "phash": i * 0x0123456789ABCDEF % 2**64} | r
        for i, r in enumerate(rows)
    ]
    columns = {n: pa.array([r[n] for r in full]) for n in full[0] if n != "phash"}
    table = pa.table(columns | {"phash": pa.array([r["phash"] for r in full], pa.uint64())})
    mask = np.isin(np.arange(len(rows)), settled)
    found = assign_verdicts(table, mask, policy or Policy())
    return list(zip(found.verdict.tolist(), found.names().tolist(), strict=True))


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma)


def pasted(ground: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """The picture on the upper left of another."""
    both, (height, width) = ground.copy(), picture.shape[:2]
    both[20 : 20 + height, 20 : 20 + width] = picture
    return both


NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
PICTURES = {
    "sharp": (ASTRONAUT, ("keep", "sharp")),
    "small": (ASTRONAUT[50:110, 60:260], ("drop", "too_small")),
    "strip": (ASTRONAUT[100:170], ("drop", "odd_aspect")),
    "dark": ((ASTRONAUT * 0.2).astype(np.uint8), ("drop", "too_dark")),
    "bright": ((ASTRONAUT * 0.05 + 240).astype(np.uint8), ("drop", "too_bright")),
    "flat": (np.full((200, 200, 3), 128, np.uint8), ("drop", "low_information")),
    "noise": (NOISE, ("drop", "no_face")),
    "cat": (data.chelsea(), ("drop", "no_face")),
    "far": (pasted(data.chelsea(), cv2.resize(ASTRONAUT, (68, 66))), ("drop", "face_too_small")),
    "blurred": (blurred(ASTRONAUT, 3), ("repair", "blurred")),
    "hopeless": (blurred(ASTRONAUT, 7), ("drop", "too_blurred")),
    "cut off": (np.ascontiguousarray(ASTRONAUT[:, :165]), ("drop", "face_cut_off")),
}


@pytest.mark.parametrize("name", PICTURES)
def test_each_fault_has_its_reason(name):
    picture, expected = PICTURES[name]
    policy = Policy(max_aspect=4.0, min_sharpness=40.0)
    assert verdict_of(numbers(picture), policy=policy) == [expected]


def test_the_border_of_each_threshold_lies_where_its_help_says():
    cases = {
        "too_small": ({"width": 64, "height": 64}, {"width": 63, "height": 64}),
        "odd_aspect": ({"width": 100, "height": 300}, {"width": 100, "height": 301}),
        "too_dark": ({"light": 0.25}, {"light": 0.249}),
        "too_bright": ({"dark": 0.9}, {"dark": 0.901}),
        "low_information": ({"entropy": 3.0}, {"entropy": 2.99}),
        "too_many_faces": ({"faces": 64}, {"faces": 65}),
        "face_too_small": ({"face_size": 24.0}, {"face_size": 23.9}),
        "face_cut_off": ({"face_margin": 0.021}, {"face_margin": 0.02}),
        "too_blurred": ({"face_sharpness": 6.0}, {"face_sharpness": 5.9}),
    }
    for reason, (within, beyond) in cases.items():
        assert verdict_of(within) == [("keep", "sharp")], reason
        assert verdict_of(beyond) == [("drop", reason)], reason
    assert verdict_of({"face_crispness": 0.84}) == [("repair", "blurred")]
    assert verdict_of({"face_crispness": 0.5, "face_scale": 4.1}) == [("keep", "large")]
    assert verdict_of({"problem": "truncated"}) == [("drop", "unreadable")]


def test_actions_let_pass_repair_or_drop_instead():
    faceless = {n: float("nan") for n in Measures.__dataclass_fields__ if n.startswith("face_")} | {
        "faces": 0
    }
    assert verdict_of(faceless, policy=Policy(actions="no_face=keep")) == [("keep", "accepted")]
    assert verdict_of({"face_size": 20.0}, policy=Policy(actions="face_too_small=repair")) == [
        ("repair", "face_too_small")
    ]
    blurred_one = {"face_crispness": 0.6}
    assert verdict_of(blurred_one, policy=Policy(actions="blurred=drop")) == [("drop", "blurred")]
    assert verdict_of(blurred_one, policy=Policy(actions="blurred=keep")) == [("keep", "accepted")]


def test_of_what_is_alike_the_settled_stay_then_those_that_show_most():
    small, large = {"width": 100, "phash": 7}, {"width": 300, "phash": 7}
    enlarged = {"width": 400, "phash": 6, "face_crispness": 0.5}
    again = ("drop", "near_duplicate")
    assert verdict_of(small, large, enlarged) == [again, ("keep", "sharp"), again]
    assert verdict_of(small, large, enlarged, settled=(0,)) == [("keep", "sharp"), again, again]
    # a dropped picture takes nobody along
    assert verdict_of(small, large | {"light": 0.1}) == [("keep", "sharp"), ("drop", "too_dark")]
    copies = [{"sha256": "same"}, {"sha256": "same"}]
    assert verdict_of(*copies) == [("keep", "sharp"), ("drop", "exact_duplicate")]
    assert verdict_of(*copies, policy=Policy(actions="exact_duplicate=keep")) == [("keep", "sharp")] * 2


def test_a_hash_outlives_size_and_compression_but_not_another_picture():
    grey = cv2.cvtColor(ASTRONAUT, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    coded = cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 0)
    own = perceptual_hash(grey)
    other = perceptual_hash(cv2.cvtColor(data.chelsea(), cv2.COLOR_RGB2GRAY))
    assert [(own ^ perceptual_hash(p)).bit_count() <= 4 for p in (small, coded)] == [True, True]
    assert (own ^ other).bit_count() > 16


def test_a_picture_is_as_crisp_as_its_least_crisp_prominent_face():
    sharp = np.asarray(portrait(220, 240))
    both = np.concatenate([sharp, blurred(sharp, 5)], axis=1)
    marks = np.array([[90, 120], [130, 120], [110, 145], [95, 165], [125, 165]], np.float32)
    box, score = (70.0, 80.0, 150.0, 190.0), 0.9
    one = Face(box, marks, score)
    other = Face((290.0, 80.0, 370.0, 190.0), marks + np.float32([220, 0]), score)
    assert measure(both, [one], 64).face_crispness > 0.8 > measure(both, [one, other], 64).face_crispness
    assert measure(both, [one], 64).face_margin == 50 / 80
    # one whole face is enough
    cut = Face((0.0, 80.0, 85.0, 190.0), marks, score)
    assert [measure(both, faces, 64).face_margin for faces in ([cut], [cut, one])] == [0.0, 50 / 80]
