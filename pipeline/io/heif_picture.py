"""The picture of a HEIF file's decoded samples: AVIF and HEIC alike."""

from pipeline.io.cicp import coded_profile
from pipeline.io.icc import Profile
from pipeline.io.picture import Array, Picture, upright_rgb


def heif_picture(
    data: bytes,
    kind: str,
    stored: Array,
    alpha: Array | None,
    bits: int,
    orientation: int,
    icc: bytes | None,
    codes: tuple[int, int] | None,
) -> Picture:
    """What is edited of a file.

    data, kind: the file and its format's name. stored: [H, W] grey or [H, W, 3] as stored; alpha: [H, W]. icc: the
    profile; without one the colours are those of the codes of primaries and transfer (ITU-T H.273), else sRGB.
    """
    is_grey = stored.ndim == 2
    profile = Profile.of(
        icc or (coded_profile(is_grey, *codes) if codes else None), "L" if is_grey else "RGB"
    )
    return Picture(
        rgb=upright_rgb(stored, orientation, profile),
        format=kind,
        stored=stored,
        alpha=alpha,
        orientation=orientation,
        save={"bitspersample": bits},
        profile=profile,
        source=data,
    )
