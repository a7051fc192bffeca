"""Pictures enhanced around their faces: which pixels the network makes, what keeps the picture's own, what fails."""

import hashlib
import io
import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from photographs import TURNED, encoded, portrait
from PIL import Image
from spandrel.architectures.ESRGAN import ESRGAN

from pipeline.faces.geometry import CropFrame, crop_scale, enlarge_crop, warp_crop
from pipeline.io import images
from pipeline.io.units import Address, Unit
from pipeline.io.weights import Published, WeightsError, find_upscaler
from pipeline.networks.tiling import MARGIN, TILE
from pipeline.records.rows import KEPT, FaceRecord, ImageRecord, dump_records, pack
from pipeline.stages import background as module
from pipeline.stages.background import Background, NotEnhanced
from pipeline.stages.paste import paste_on_enhanced
from pipeline.stages.publish import Publish

SIDE = 64
RED = np.array([200, 10, 20], np.uint8)


@dataclass(frozen=True)
class Paint:
    """In place of a network: everything red."""

    upscale: int = 1

    def __call__(self, picture):
        height, width = picture.shape[:2]
        return np.full((height * self.upscale, width * self.upscale, 3), RED, np.uint8)


def face(scale=0.5, shift=-30.0, **more) -> FaceRecord:
    """A crop that lies within the picture, upright: picture pixels `-shift * scale` and on."""
    affine = [1 / scale, 0.0, shift, 0.0, 1 / scale, shift]
    return FaceRecord(0, 0, [0, 0, 1, 1], [0.0] * 10, affine, 1.0, scale, **more)


def flat(value) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), value, np.uint8)


def pasted(data, faces, kept=(), background=Paint()):
    done = paste_on_enhanced(data, faces, kept, SIDE, None, images.MAX_PIXELS, background).data
    return np.asarray(Image.open(io.BytesIO(done)).convert("RGB")), done


def test_around_the_face_is_what_the_network_makes_and_in_it_the_restoration_alone():
    result, _ = pasted(encoded(portrait(), "PNG"), [(face(), flat(9), flat(90))])
    assert (result[60:] == RED).all() and (result[:10] == RED).all()
    assert (result[25:37, 25:37] == 90).all()  # the crop reaches from 15 to 47


def test_a_share_of_a_restoration_mixes_with_the_pictures_own_pixels():
    picture = np.array(portrait())
    result, _ = pasted(encoded(portrait(), "PNG"), [(face(strength=0.25), flat(9), flat(90))])
    inner = (slice(25, 37), slice(25, 37))
    assert np.abs(result[inner] - (0.75 * picture[inner] + 0.25 * 90)).max() <= 1


def test_a_face_that_is_kept_does_not_go_through_the_network():
    result, _ = pasted(encoded(portrait(), "PNG"), [], [face(kept="sharp already")])
    assert np.array_equal(result[25:37, 25:37], np.array(portrait())[25:37, 25:37])
    assert (result[60:] == RED).all()


def test_a_face_at_the_border_and_one_outside_are_pasted_as_far_as_they_reach():
    result, _ = pasted(encoded(portrait(), "PNG"), [], [face(shift=20.0), face(shift=-900.0)])
    assert np.array_equal(result[:8, :8], np.array(portrait())[:8, :8])


@pytest.mark.parametrize("times", [2, 4])
def test_an_enlarged_picture_has_its_faces_at_the_same_place_from_the_whole_crop(times):
    chequered = np.indices((SIDE, SIDE)).sum(0) % 2 * 200
    fine = np.repeat(chequered[..., None], 3, axis=2).astype(np.uint8)
    placed = face(shift=-29.5)  # at twice the size its crop lies pixel on pixel
    result, _ = pasted(encoded(portrait(), "PNG"), [(placed, flat(9), fine)], (), Paint(times))
    assert result.shape == (110 * times, 100 * times, 3)
    assert (result[60 * times :] == RED).all()
    if times == 2:
        assert np.array_equal(result[50:74, 50:74], fine[20:44, 20:44])
    assert result[25 * times : 37 * times, 25 * times : 37 * times].std() > 40


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", ["grey", "palette", "deep", "alpha", "turned"])
def test_a_picture_keeps_its_kind_orientation_and_metadata(kind, times):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = TURNED, "an album"
    deep = np.random.default_rng(0).integers(0, 65536, (40, 30), np.uint16)
    alpha = Image.linear_gradient("L").resize((100, 110))
    data = {
        "grey": lambda: encoded(portrait().convert("L"), "PNG"),
        "palette": lambda: encoded(portrait().quantize(64), "GIF"),
        "deep": lambda: encoded(Image.fromarray(deep), "PNG"),
        "alpha": lambda: encoded(Image.merge("RGBA", (*portrait().split(), alpha)), "PNG"),
        "turned": lambda: encoded(portrait().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif),
    }[kind]()
    before = images.decode(data)
    _, done = pasted(data, [(face(), flat(9), flat(90))], (), Paint(times))
    after = images.decode(done)
    assert (after.format, after.stored.dtype, after.stored.ndim) == (
        before.format,
        before.stored.dtype,
        before.stored.ndim,
    )
    assert after.rgb.shape[:2] == tuple(times * n for n in before.rgb.shape[:2])
    assert (after.alpha is None) == (before.alpha is None) and after.orientation == before.orientation
    if kind == "alpha":
        larger = after.alpha.reshape(110, times, 100, times).mean(axis=(1, 3))
        assert np.abs(larger - before.alpha).max() <= 2
    if kind == "turned":
        assert Image.open(io.BytesIO(done)).getexif()[0x010E] == "an album"


def test_an_enlarged_picture_alone_is_where_it_was():
    larger = images.enlarged(images.decode(encoded(portrait(), "PNG")), 2)
    back = larger.rgb.reshape(110, 2, 100, 2, 3).mean(axis=(1, 3))
    assert np.abs(back - np.array(portrait())).mean() < 1.5


def test_the_crop_of_an_enlarged_picture_is_the_same_crop():
    to_crop = np.array(face(1.5, -7.0).affine).reshape(2, 3)
    picture = np.array(portrait())
    large = images.enlarged(images.decode(encoded(portrait(), "PNG")), 4).rgb
    assert crop_scale(enlarge_crop(to_crop, 4)) == pytest.approx(4 * crop_scale(to_crop))
    apart = warp_crop(large, enlarge_crop(to_crop, 4), 32).astype(int) - warp_crop(picture, to_crop, 32)
    assert np.abs(apart).mean() < 2


# ---- the stage, with a real network of another library


@pytest.fixture(scope="module")
def background(tmp_path_factory) -> Background:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(ESRGAN(num_filters=4, num_blocks=1, scale=2).state_dict(), path)
    return Background(Published(str(path), None, None, "CC0-1.0"), None, 1, "cpu", "auto")


def test_a_network_from_a_file_gives_the_same_picture_wherever_it_is_loaded(background):
    picture = np.array(portrait())
    done = background(picture)
    assert done.shape == picture.shape and done.dtype == np.uint8 and done.std() > 0
    assert np.array_equal(pickle.loads(pickle.dumps(background))(picture), done)
    assert (TILE + 2 * MARGIN) % 64 == 0


def published(tmp_path, background, data: bytes, outcome: str | None, reason: str = ""):
    """What a unit of one picture without faces delivers, and its record."""
    (tmp_path / "a.png").write_bytes(data)
    unit = Unit("s", "folder", 0, True, (Address("a.png", str(tmp_path / "a.png"), 0, len(data)),))
    record = ImageRecord("a.png", hashlib.sha256(data).hexdigest(), 100, 110, outcome, reason)
    publish = Publish(
        str(tmp_path / "out"), CropFrame(SIDE), "image", False, None, images.MAX_PIXELS, False,
        {"eta": 0.5, "seed": 0, "model_sha256": "a"}, background=background,
    )  # fmt: skip
    nothing = {name: pack([]) for name in ("crops", "estimated", "restored")}
    told = {"images": dump_records([record]), "faces": dump_records([]), "sums": "{}"}
    marker = json.loads(publish({"unit": unit.name, "work": unit.to_json()} | nothing | told)["marker"])
    return (tmp_path / "out/images/a.png").read_bytes(), marker


@pytest.mark.parametrize(
    ("outcome", "reason", "enhanced"),
    [("no_face", "", True), ("skipped", KEPT, True), ("skipped", "too large", False), ("failed", "x", False)],
)
def test_good_pictures_without_restored_faces_are_enhanced_and_keep_their_outcome(
    tmp_path, outcome, reason, enhanced
):
    data = encoded(portrait(), "PNG")
    done, marker = published(tmp_path, Paint(), data, outcome, reason)
    assert (done != data) == enhanced and marker["outcomes"][outcome] == 1
    assert (images.decode_rgb(done) == RED).all() == enhanced


def test_without_a_background_network_such_a_picture_is_delivered_as_it_came(tmp_path):
    data = encoded(portrait(), "PNG")
    assert published(tmp_path, None, data, "no_face")[0] == data


def test_a_picture_that_the_network_has_no_memory_for_fails_alone_and_is_delivered_as_it_came(
    tmp_path, background, monkeypatch
):
    def no_memory(_):
        def ask(_):
            raise torch.OutOfMemoryError("9 GiB were wanted")

        return ask

    monkeypatch.setattr(module, "load_network", no_memory)
    data = encoded(portrait(), "PNG")
    done, marker = published(tmp_path, background, data, "no_face")
    assert done == data
    assert marker["reasons"]["failed"] == {"background: OutOfMemoryError": 1}


def test_why_a_picture_was_not_enhanced_comes_back_from_another_process():
    error = pickle.loads(pickle.dumps(NotEnhanced("9 GiB were wanted", "OutOfMemoryError")))
    assert (str(error), error.reason) == ("9 GiB were wanted", "OutOfMemoryError")


def test_a_name_that_is_no_network_is_answered_with_the_known_ones(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"'realesrgan' is not known; choose one of realesrgan-x2plus, "):
        find_upscaler("realesrgan")
    assert find_upscaler("realesrgan-x4plus").licence.startswith("BSD-3-Clause; ")
    (tmp_path / "mine.pth").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert find_upscaler("mine.pth").file == str(tmp_path / "mine.pth")
    assert find_upscaler("elsewhere.pth").file == "elsewhere.pth"
