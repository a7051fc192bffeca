"""The options of which faces are restored, and how they go back into the picture."""

from dataclasses import dataclass
from typing import Literal

from pipeline.console.options import option, require


@dataclass(frozen=True)
class FaceOptions:
    """Which faces are restored, and how they go back into the picture."""

    detector: Literal["centerface", "retinaface-mobile0.25", "retinaface-resnet50"] = option(
        "centerface",
        help="face detector; centerface needs no download, the others take facexlib's weights",
        pixels=True,
    )
    min_score: float | None = option(
        None, help="detector score below which a face is ignored (default: the detector's own)",
        pixels=True,
    )  # fmt: skip
    only: str | None = option(
        None,
        help="restore the faces of this list alone: a CSV file with the columns picture and face (its number in the "
        "records), or picture, x0, y0, x1, y1 (a region, pixels); a picture alone means all its faces",
        metavar="FILE",
    )
    never: str | None = option(
        None,
        help="touch no face of this list, a file as for --only; a region keeps its pixels whether a face is found in "
        "it or not",
        metavar="FILE",
    )
    min_face: float = option(
        16,
        help="shorter side of a face box below which it is left as it is, pixels; large pictures are searched in tiles "
        "until such a face is seen, and a larger value is quicker",
        pixels=True,
    )
    max_faces: int = option(64, help="most faces restored in one picture, largest first", pixels=True)
    max_overlap: float = option(
        0.4, help="boxes overlapping by more than this share are one face", pixels=True
    )
    sides: Literal["preset", "one"] | None = option(
        None,
        help="preset: large faces with fine detail have crops of the larger sides that the preset names; one: every "
        "crop has the preset's side (default: preset; an output that was begun without goes on without)",
    )
    paste: Literal["change", "crop"] = option(
        "change",
        help="change: what the restoration changed is added to the picture, so that its finer detail stays; crop: the "
        "restored crop is laid over it, as the paper does",
        pixels=True,
    )
    free_colour: bool = option(
        False,
        help="leave restored faces the chain's own colours instead of the picture's",
        pixels=True,
    )
    keep_detail: float | None = option(
        None,
        help="with --paste crop: share of the picture's own fine detail kept under a pasted face, 0 to 1 "
        "(default: by the face's size against the preset's)",
        pixels=True,
    )
    strength: float | None = option(
        None,
        help="share of the restoration that is pasted, 0 to 1 (default: whole; of presets that do not treat faces by "
        "their damage, less for a face that is sharp already or much larger than the preset's side)",
        pixels=True,
    )
    max_pixels: int = option(
        178_956_970,
        help="pictures above this many pixels are skipped, those of 16-bit colour above half as many; a worker takes "
        "up to 25 bytes of memory a pixel, up to 50 where one face fills the picture",
        pixels=True,
    )

    def __post_init__(self) -> None:
        rules = {
            "--keep-detail must lie in [0, 1]": self.keep_detail is None or 0 <= self.keep_detail <= 1,
            "--max-overlap must lie in [0, 1]": 0 <= self.max_overlap <= 1,
            "--max-faces must be at least 1": self.max_faces >= 1,
            "--max-pixels must be at least 1": self.max_pixels >= 1,
            "--strength must lie in [0, 1]": self.strength is None or 0 <= self.strength <= 1,
            "--keep-detail is for --paste crop": self.keep_detail is None or self.paste == "crop",
        }
        require(self, rules)
