"""ICC profiles of spaces that archives hold, made here."""

import numpy as np
from PIL import Image, ImageCms

from pipeline.io import icc

D50, D65 = (0.3457, 0.3585), (0.3127, 0.3290)
ADOBE_RGB = icc.rgb_profile(D65, (0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 2.19921875)
DISPLAY_P3 = icc.rgb_profile(D65, (0.68, 0.32, 0.265, 0.69, 0.15, 0.06), 2.2)
PROPHOTO = icc.rgb_profile(D50, (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), 1.8)
LINEAR = icc.rgb_profile(D65, (0.64, 0.33, 0.30, 0.60, 0.15, 0.06), 1.0)
GREY_18, GREY_22 = icc.grey_profile(1.8), icc.grey_profile(2.2)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cmyk_profile():
    """A press of ideal inks as an ICC profile of tables (lut8), in both directions, by LAB of naive conversion."""
    grid, entries = 5, 256
    inks = np.stack(np.meshgrid(*[np.linspace(0, 1, grid)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    rgb = ((1 - inks[:, :3]) * (1 - inks[:, 3:]) * 255).round().astype(np.uint8)
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    there = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    table = np.asarray(ImageCms.applyTransform(Image.fromarray(rgb[None]), there))[0]
    table = (table.view(np.int8).astype(int) + np.where([1, 0, 0], 0, 128)) % 256  # signed a, b → offset
    table[:, 0] = np.asarray(ImageCms.applyTransform(Image.fromarray(rgb[None]), there))[0][:, 0]
    ends = np.stack(np.meshgrid(*[np.linspace(0, 255, grid).round()] * 3, indexing="ij"), axis=-1)
    labs = ends.reshape(-1, 3).astype(np.uint8)
    back = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    planes = [Image.fromarray(np.ascontiguousarray(labs[None, :, i])) for i in range(3)]
    light = np.asarray(ImageCms.applyTransform(Image.merge("LAB", planes), back))[0].astype(int)
    separations = np.concatenate([255 - light, np.zeros((len(light), 1), int)], axis=1)

    def lut(inputs, outputs, values):
        head = b"mft1" + bytes(4) + bytes([inputs, outputs, grid, 0])
        head += b"".join(int(v * 65536).to_bytes(4, "big") for v in np.eye(3).ravel())
        return (
            head
            + bytes(range(entries)) * inputs
            + values.astype(np.uint8).tobytes()
            + bytes(range(256)) * outputs
        )

    def text(kind, said):
        return kind + bytes(4) + said

    tags = {
        b"desc": text(b"desc", (4).to_bytes(4, "big") + b"ink\0" + bytes(78)),
        b"cprt": text(b"text", b"none\0"),
        b"wtpt": b"XYZ " + bytes(4) + b"".join(int(v * 65536).to_bytes(4, "big") for v in (0.9642, 1, 0.8249)),
        b"A2B0": lut(4, 3, table), b"B2A0": lut(3, 4, separations),
    }  # fmt: skip
    place, listed, bodies = 132 + 12 * len(tags), b"", b""
    for name, tag in tags.items():
        body = tag + bytes(-len(tag) % 4)
        listed += name + place.to_bytes(4, "big") + len(body).to_bytes(4, "big")
        bodies, place = bodies + body, place + len(body)
    head = place.to_bytes(4, "big") + bytes(4) + b"\x02\x40\0\0prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += b"".join(int(v * 65536).to_bytes(4, "big") for v in (0.9642, 1, 0.8249))
    return head.ljust(128, b"\0") + len(tags).to_bytes(4, "big") + listed + bodies


CMYK = cmyk_profile()
