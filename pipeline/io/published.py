"""Weights files that others publish: addresses, digests and licences."""

from dataclasses import dataclass
from pathlib import Path

from pipeline import Refusal


class WeightsError(Refusal):
    """A weights file that can not be had, or that is not the one wanted."""


@dataclass(frozen=True)
class Published:
    """A file that others publish."""

    file: str
    # None for a file of one's own
    url: str | None
    sha256: str | None
    # its own terms, and what restricts its training data; docs/weights.md has the sources
    licence: str


_WIDER_FACE = "trained on WIDER FACE (academic research only)"
# Face detectors by the names that `faces/detect.py` gives them; addresses from facexlib's source.
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download/v0.1.0"
DETECTOR_WEIGHTS = {
    "retinaface-mobile0.25": Published(
        file="detection_mobilenet0.25_Final.pth",
        url=f"{_FACEXLIB}/detection_mobilenet0.25_Final.pth",
        sha256="7c417d4a43c5e2100ef40c2fbd2177d2fd0e5090d8e87c0fa31806cfb895c12f",
        licence=f"MIT; {_WIDER_FACE}",
    ),
    "retinaface-resnet50": Published(
        file="detection_Resnet50_Final.pth",
        url=f"{_FACEXLIB}/detection_Resnet50_Final.pth",
        sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        licence=f"MIT; {_WIDER_FACE}",
    ),
}

_IMAGENET = "trained on ImageNet (non-commercial research and education only)"
_ARNIQA = "https://github.com/miccunifi/ARNIQA/releases/download/weights"

# Networks of metrics, by the metric of `metrics/suite.py` that needs them. The others' lie inside packages.
METRIC_WEIGHTS = {
    # in the package; of the gates, too
    "identity": Published(
        file="face_embedding.safetensors",
        url=None,
        sha256="408bc3660ca8d3d18dee212daf7f9c0c09071cc951d8d075da054603eec15528",
        licence="CC0-1.0 (Davis King, dlib_face_recognition_resnet_model_v1); half of its data are sets for research",
    ),
    # in the package; of the metrics landmarks and lmd
    "landmarks": Published(
        file="face_mesh.safetensors",
        url=None,
        sha256="d73e2802afb4f09743d32b236422ea3dc78e8ee18c7ba48159cdb1e9361fe2b5",
        licence="Apache-2.0 (Google, MediaPipe's face_landmark.tflite)",
    ),
    # in the package: mean and covariance of undistorted photographs
    "niqe": Published(
        file="niqe_pristine.safetensors",
        url=None,
        sha256="6d4dd40c909b1db7669016ef777652ae3addbdb90333b9df55a9b354c3f7a9fd",
        licence="University of Texas at Austin, any purpose, notice to be kept (NIQE software release)",
    ),
    # either torchvision's whole AlexNet, published at this address, or its feature layers alone
    "lpips": Published(
        file="alexnet_features.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256=None,
        licence=f"BSD-3-Clause; {_IMAGENET}",
    ),
    # torchvision's whole VGG-16, or its feature layers alone
    "dists": Published(
        file="vgg16-397923af.pth",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        licence=f"BSD-3-Clause; {_IMAGENET}",
    ),
    "clipiqa": Published(
        file="RN50.pt",
        url="https://openaipublic.azureedge.net/clip/models/"
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
        sha256="afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        licence="MIT (OpenAI CLIP)",
    ),
    "arniqa": Published(
        file="ARNIQA.pth",
        url=f"{_ARNIQA}/ARNIQA.pth",
        sha256=None,
        licence="Apache-2.0 (miccunifi/ARNIQA); trained on KADIS-700k",
    ),
    "arniqa-regression": Published(
        file="regressor_koniq10k.pth",
        url=f"{_ARNIQA}/regressor_koniq10k.pth",
        sha256=None,
        licence="Apache-2.0 (miccunifi/ARNIQA); trained on KonIQ-10k",
    ),
    # the following are brought by the user
    "musiq": Published(
        file="musiq_koniq_ckpt-e95806b9.pth",
        url=None,
        sha256=None,
        licence=f"Apache-2.0 (google-research/musiq, converted); {_IMAGENET} and KonIQ-10k",
    ),
    "maniqa": Published(
        file="ckpt_koniq10k.pt",
        url=None,
        sha256=None,
        licence=f"Apache-2.0 (IIGROUP/MANIQA); {_IMAGENET} and KonIQ-10k",
    ),
    "adaface": Published(
        file="adaface_ir50_ms1mv2.ckpt",
        url=None,
        sha256=None,
        licence="MIT (mk-minchul/AdaFace); trained on MS1MV2 (of MS-Celeb-1M: for research only, withdrawn)",
    ),
}

# Networks that find what hides a picture, by the --mask that asks for them.
MASK_WEIGHTS = {
    # in the package
    "scratches": Published(
        file="scratches.safetensors",
        url=None,
        sha256="4501fe85e878178e563ca0dc36ca307faaa7d87f48b4cc37aced135108da8610",
        licence="Apache-2.0; trained on FairFace (CC BY 4.0)",
    ),
}

# Networks that enlarge whole pictures, by the names that --background takes. The digests are those that many who
# fetched the authors' release files have written down.
_REAL_ESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download"
UPSCALER_WEIGHTS = {
    "realesrgan-x2plus": Published(
        file="RealESRGAN_x2plus.pth",
        url=f"{_REAL_ESRGAN}/v0.2.1/RealESRGAN_x2plus.pth",
        sha256="49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        licence="BSD-3-Clause; trained on DIV2K (academic use), Flickr2K, OutdoorSceneTraining",
    ),
    "realesrgan-x4plus": Published(
        file="RealESRGAN_x4plus.pth",
        url=f"{_REAL_ESRGAN}/v0.1.0/RealESRGAN_x4plus.pth",
        sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        licence="BSD-3-Clause; trained on DIV2K (academic use), Flickr2K, OutdoorSceneTraining",
    ),
}


def find_upscaler(choice: str) -> Published:
    """The file of a known name, or a weights file of one's own. Raises WeightsError for a name that is neither."""
    if choice in UPSCALER_WEIGHTS:
        return UPSCALER_WEIGHTS[choice]
    path = Path(choice).expanduser()
    if not path.suffix:
        raise WeightsError(
            f"background network {choice!r} is not known; choose one of {', '.join(UPSCALER_WEIGHTS)}, or give a "
            "weights file (.pth, .safetensors)"
        )
    return Published(str(path.absolute()) if path.is_file() else choice, None, None, "unknown")
