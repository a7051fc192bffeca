"""Colours by code (ITU-T H.273), as PNG and AVIF may name them: an ICC profile that says the same."""

import numpy as np

from pipeline.io.icc import SRGB_PRIMARIES, SRGB_WHITE, grey_profile, rgb_profile

# White and primaries by their code.
CODED_PRIMARIES = {
    1: (SRGB_WHITE, SRGB_PRIMARIES),
    5: (SRGB_WHITE, (0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: (SRGB_WHITE, (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    9: (SRGB_WHITE, (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: ((0.314, 0.351), (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: (SRGB_WHITE, (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
}
# Transfer functions by code: the exponents of BT.470 M and B/G, and linear light; BT.709 is shown with 2.4.
CODED_EXPONENTS = {1: 2.4, 4: 2.2, 5: 2.8, 6: 2.4, 8: 1.0, 14: 2.4, 15: 2.4}
CURVE_STEPS = 4096


def coded_profile(is_grey: bool, primaries: int, transfer: int) -> bytes | None:
    """The profile of two codes; None where they mean sRGB.

    HDR transfer functions (PQ, HLG) are taken as sRGB, as no such light is known to the networks.
    """
    white, corners = CODED_PRIMARIES.get(primaries, (SRGB_WHITE, SRGB_PRIMARIES))
    curve = CODED_EXPONENTS.get(transfer)
    if corners == SRGB_PRIMARIES and curve is None:
        return None
    return made_profile(is_grey, white, corners, curve)


def made_profile(
    is_grey: bool, white: tuple[float, float], primaries: tuple[float, ...], exponent: float | None
) -> bytes | None:
    """The profile of x and y of white and of red, green and blue. exponent: None of sRGB's curve."""
    steps = np.linspace(0, 1, CURVE_STEPS)
    srgb = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    curve = srgb if exponent is None else exponent
    try:
        return grey_profile(curve) if is_grey else rgb_profile(white, primaries, curve)
    except Exception:  # numbers that are no colours
        return None
