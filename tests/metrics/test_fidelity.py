"""PSNR and SSIM against scikit-image, LPIPS on networks of the published shape."""

import pytest
import torch
from skimage import data, metrics
from torch import nn

from pipeline.metrics.fidelity import LPIPS, psnr, ssim

TRUTH = torch.from_numpy(data.astronaut()[:96, 160:256].transpose(2, 0, 1)[None].copy()).float() / 255
NOISY = (TRUTH + 0.05 * torch.randn(TRUTH.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def as_image(batch):
    return batch[0].permute(1, 2, 0).numpy()


def test_psnr_agrees_with_scikit_image():
    expected = metrics.peak_signal_noise_ratio(as_image(TRUTH), as_image(NOISY), data_range=1)
    assert psnr(NOISY, TRUTH).item() == pytest.approx(expected, abs=1e-4)
    assert psnr(TRUTH, TRUTH).item() == 100


def test_ssim_agrees_with_scikit_image():
    expected = metrics.structural_similarity(
        as_image(TRUTH), as_image(NOISY), data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(NOISY, TRUTH).item() == pytest.approx(expected, abs=1e-4)


def test_one_value_per_face_so_that_sums_add():
    pair = torch.cat([TRUTH, NOISY]), torch.cat([NOISY, NOISY])
    assert psnr(*pair).shape == ssim(*pair).shape == (2,)
    assert psnr(*pair)[0] == psnr(TRUTH, NOISY)[0]


def backbone(path, channels=3):
    shapes = [(64, channels, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]
    layers = [nn.Conv2d(i, o, k) for o, i, k in shapes]
    state = {f"features.{n}.{k}": v for n, m in enumerate(layers) for k, v in m.state_dict().items()}
    torch.save(state, path)
    return path


def test_lpips_is_zero_for_equal_faces_and_grows_with_noise(tmp_path):
    torch.manual_seed(0)
    distance = LPIPS(backbone(tmp_path / "alexnet_features.pth"))
    assert distance(TRUTH, TRUTH).item() == 0
    assert 0 < distance(NOISY, TRUTH).item() < distance(torch.rand_like(TRUTH), TRUTH).item()


def test_a_backbone_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match="five feature layers"):
        LPIPS(backbone(tmp_path / "other.pth", channels=1))
