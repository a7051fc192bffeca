"""Training without Ray: packing, a whole tiny training, resuming after a kill, and what it does without."""

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from pipeline.datasets.packed_faces import PackError, crop_faces, read_packed, write_packed
from pipeline.faces.geometry import CropFrame
from pipeline.networks.checkpoint import CheckpointError, read_state
from pipeline.networks.unet import UNet, UNetConfig
from pipeline.training.face_batches import FaceBatches
from pipeline.training.half_norms import keep_half
from pipeline.training.timed import TimedConfig, TimedTraining
from pipeline.training.weight_parts import read_parts, write_parts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "gpu_train.py"
CPU = torch.device("cpu")
SIDE = 32
# Five landmarks of the astronaut's face, pixels of scikit-image's picture.
LANDMARKS = [206, 107, 245, 108, 224, 132, 208, 152, 241, 152]
PRESET = """
side = 32
max_step = 499
start_step = 100
calls = 2
hold = 1.5
start_rule = "paper"

[crop]
zoom = 1.45
centre = [0.5, 0.57]
resampling = "fine"

[prior]
kind = "unet"
file = "tiny_prior.safetensors"
[prior.options]
image_size = 16
patch = 2
model_channels = 32
channel_mult = [1, 1]
num_res_blocks = [1, 1]
attention_resolutions = [8]
num_head_channels = 32
out_channels = 3

[estimator]
kind = "nafnet"
file = "tiny_estimator.safetensors"
[estimator.options]
width = 8
middle_blk_num = 1
enc_blk_nums = [1]
dec_blk_nums = [1]
patch = 2
"""


def load_script():
    spec = importlib.util.spec_from_file_location("gpu_train", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_train"] = module
    spec.loader.exec_module(module)
    return module


gpu_train = load_script()


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    """Photographs of one face with landmarks, moved and mirrored, and an aligned crop without landmarks."""
    path = tmp_path_factory.mktemp("faces") / "faces-000.tar"
    with tarfile.open(path, "w") as out:

        def add(name, content):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))

        for i in range(24):
            top, left = 2 * (i % 4), 100 + 3 * (i % 5)
            picture = np.roll(data.astronaut(), i % 3, 2)[top : top + 220, left : left + 220]
            landmarks = np.array(LANDMARKS, float).reshape(5, 2) - (left, top)
            add(f"{i:03}.jpg", cv2.imencode(".jpg", picture)[1].tobytes())
            add(f"{i:03}.json", json.dumps({"landmarks": landmarks.ravel().tolist()}).encode())
        add("aligned.png", cv2.imencode(".png", data.astronaut()[100:132, 200:232])[1].tobytes())
        add("too-large.png", cv2.imencode(".png", data.astronaut())[1].tobytes())
    return path


@pytest.fixture(scope="module")
def packed(tar):
    """The faces of the tar as a packed file."""
    preset = tar.with_name("tiny.toml")
    preset.write_text(PRESET)
    path = tar.with_name("packed.npz")
    arguments = ["--faces", str(tar), "--out", str(path), "--mib", "1", "--preset", str(preset)]
    assert gpu_train.main(["pack", *arguments]) == 0
    return path


def options(packed, out, *more):
    """The options of a tiny training."""
    return [
        "train", "--faces", str(packed), "--preset", str(packed.with_name("tiny.toml")), "--out", str(out),
        "--from", "scratch", "--device", "cpu", "--batch", "2", *more,
    ]  # fmt: skip


def lines(out, kind):
    report = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    return [line for line in report if line["kind"] == kind]


def test_packed_faces_come_back_nearly_as_they_were_cropped(tar, packed):
    frame = CropFrame(SIDE, 1.45, (0.5, 0.57), "fine")
    faces, back = crop_faces([str(tar)], frame), read_packed([packed])
    assert len(back.crops) == 25 and back.margin == 2 and back.held_out.sum() == 2
    np.testing.assert_array_equal(back.inside, faces.inside)
    assert np.abs(back.crops.astype(int) - faces.crops).mean() < 3
    assert len(read_packed([packed, packed]).crops) == 50
    # the aligned crop has no pixels in its margin
    assert back.inside[24].sum() == SIDE**2


def test_faces_that_do_not_fit_are_refused(tar, packed, tmp_path):
    with pytest.raises(PackError, match="larger --mib"):
        write_packed(read_packed([packed]), tmp_path / "small.npz", 0.001)
    assert not list(tmp_path.iterdir())
    with pytest.raises(PackError, match="no tar shards"):
        crop_faces([str(tmp_path / "*.tar")], CropFrame(SIDE))


def test_copies_that_are_not_turned_keep_the_bits_of_their_crop(packed, monkeypatch):
    monkeypatch.setattr("pipeline.training.face_batches.RESAMPLED", 0.0)
    monkeypatch.setattr("pipeline.training.face_batches.toned", lambda faces, rng: faces)
    faces = read_packed([packed])
    batch = FaceBatches(faces, 8, 3, CPU, degraded=False)(0)
    windows = np.lib.stride_tricks.sliding_window_view(faces.crops, (SIDE, SIDE), (1, 2))
    windows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, SIDE, SIDE, 3)
    for copy in (batch["hq"] * 255).round().byte().permute(0, 2, 3, 1).numpy():
        assert any((copy == w).all() or (copy[:, ::-1] == w).all() for w in windows)


def test_a_batch_depends_on_seed_and_number_alone(packed):
    faces = read_packed([packed])
    first, again, next_one = (FaceBatches(faces, 4, 3, CPU)(n) for n in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["hq"], next_one["hq"])
    assert first["lq"].shape == (4, 3, SIDE, SIDE) and first["mask"].shape == (4, 1, SIDE, SIDE)


def test_a_training_learns_and_leaves_everything(packed, tmp_path):
    assert gpu_train.main(options(packed, tmp_path, "--steps", "8", "--keep-state")) == 0
    names = {p.name for p in tmp_path.iterdir()}
    states = {"state-estimator.pt", "state-prior.pt"}
    assert names == {"estimator.safetensors", "prior.safetensors", "report.jsonl", "sheet.png"} | states
    first, *_, last = [x for x in lines(tmp_path, "validation") if x["network"] == "prior"]
    assert last["eps_t100"] < first["eps_t100"] and last["step"] == 8
    estimator = [x for x in lines(tmp_path, "validation") if x["network"] == "estimator"]
    assert {"paper", "clean", "mild", "heavy"} < set(estimator[-1])
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (2 * SIDE, 5 * SIDE, 3)
    assert all(t.dtype == torch.float32 for t in read_state(tmp_path / "prior.safetensors").values())
    # the finished training goes on as another cosine, from its weights
    assert gpu_train.main(options(packed, tmp_path, "--steps", "2", "--network", "prior")) == 0
    assert lines(tmp_path, "training")[-1]["step"] == 10
    # another one starts from its averaged weights
    more = ("--from", str(tmp_path), "--steps", "1", "--network", "prior")
    assert gpu_train.main([*options(packed, tmp_path / "next"), *more]) == 0
    before, after = (lines(d, "validation") for d in (tmp_path, tmp_path / "next"))
    assert after[0]["eps_t200"] == pytest.approx(before[-1]["eps_t200"], rel=1e-2)


def test_a_wrong_start_is_refused_in_one_sentence(packed, tmp_path, capsys):
    assert gpu_train.main([*options(packed, tmp_path / "out"), "--from", str(tmp_path / "nothing")]) == 2
    assert "--from must be package, scratch" in capsys.readouterr().err


def test_a_killed_training_goes_on_to_the_weights_of_an_undisturbed_one(packed, tmp_path):
    more = ("--steps", "6", "--network", "estimator", "--keep-state", "--validations", "2")
    assert gpu_train.main(options(packed, tmp_path / "whole", *more)) == 0
    save = TimedTraining.save

    def save_and_die(self, path):
        save(self, path)
        if self.step == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TimedTraining, "save", save_and_die)
        gpu_train.main(options(packed, tmp_path / "killed", *more))
    assert gpu_train.main(options(packed, tmp_path / "killed", *more)) == 0
    assert lines(tmp_path / "killed", "resumed")[0]["step"] == 4
    one, other = (read_state(tmp_path / d / "estimator.safetensors") for d in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_runs_without_ray_and_ends_in_order_when_it_is_stopped(packed, tmp_path):
    blocked = tmp_path / "blocked"
    for name in (
        "ray",
        "mlflow",
        "s3fs",
        "fsspec",
        "spandrel",
        "skimage",
        "scipy",
        "pyarrow",
        "torchvision",
        "tqdm",
    ):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('not on this machine')")
    out = tmp_path / "out"
    command = ["bash", str(ROOT / "tools" / "gpu_train.sh"), *options(packed, out, "--minutes", "20")[1:]]
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        while not ((out / "report.jsonl").is_file() and lines(out, "validation")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == gpu_train.INTERRUPTED
    assert lines(out, "end")[0]["stopped"]
    read_state(out / "estimator.safetensors")


def test_half_norms_change_a_prior_by_rounding_alone():
    network = UNet(UNetConfig(16, 32, (1, 1), (1, 1), (8,), 32)).eval()
    torch.nn.init.normal_(network.out[2].weight, std=0.1)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 300])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        before = network(x, t).float()
        keep_half(network)
        after = network(x, t).float()
    assert (after - before).abs().max() < 0.03 * before.abs().max()


def test_weights_are_split_below_the_limit_and_joined_again(tmp_path):
    state = {f"layer{i}": torch.randn(100, 10).half().float() for i in range(5)}
    paths = write_parts(state, tmp_path, "net", most=5000)
    assert len(paths) == 3 and all(p.stat().st_size <= 5000 for p in paths)
    back = read_parts(tmp_path, "net")
    assert list(back) == list(state) and all(torch.equal(back[k], state[k]) for k in state)
    paths[1].unlink()
    with pytest.raises(CheckpointError, match="all parts"):
        read_parts(tmp_path, "net")


def test_the_rate_rises_and_then_falls_to_a_fiftieth(packed):
    training = TimedTraining(torch.nn.Linear(2, 2), TimedConfig(rate=1.0, steps=1000, warmup=200), CPU)
    rates = []
    for training.cosine_step in (0, 199, 500, 1000):
        rates.append(training.rate)
    assert rates == pytest.approx([0.005, 0.906, 0.51, 0.02], abs=2e-3)
