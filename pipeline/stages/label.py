"""Label a restored picture: XMP that says a network made parts of it, in its file or in a sidecar beside it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.io.tiff_xmp import NoPlace
from pipeline.io.xmp import BadPacket, Label, merged
from pipeline.io.xmp_places import find_packet, with_packet
from pipeline.records.rows import FaceRecord

# Raised when the same picture and settings begin to give another label: it is part of the fingerprint.
FORM = 1


class Labelled(NamedTuple):
    """A picture, and where its label is."""

    data: bytes
    # the sidecar's bytes; None where there is none
    sidecar: bytes | None = None
    # for the records: where the label is, and why it is not in the file; None without a label
    where: str | None = None


@dataclass(frozen=True)
class LabelPictures:
    """Encoded bytes of a restored picture → the same with a label: no pixel and no other block changes.

    The label depends on the picture and the settings alone, as everything that is delivered does. So it names no time
    unless the settings name one (`date`): a clock's would give a picture that is restored again other bytes.
    """

    preset: str
    # what names the program, as METHOD_VERSION does
    agent: str
    # short digests of the weights
    version: str
    # ISO 8601, as --label-date; empty for none
    date: str = ""

    def __call__(
        self, data: bytes, sha256: str, faces: Sequence[FaceRecord], background: str, beside: bool
    ) -> Labelled:
        """sha256: of the picture that came. faces: all of it. background: what enhanced the rest of the picture.

        beside: whether a sidecar can lie there.
        """
        how = self._parameters(faces, background)
        label = Label(f"DifFace, preset {self.preset}", self.version, self.agent, how, sha256, self.date)
        try:
            return Labelled(with_packet(data, merged(find_packet(data), label)), None, "xmp")
        except (NoPlace, BadPacket) as error:
            if beside:
                return Labelled(data, merged(None, label), f"sidecar: {error}")
            return Labelled(data, None, f"none: {error}")

    def _parameters(self, faces: Sequence[FaceRecord], background: str) -> str:
        changed = [face for face in faces if not face.kept and not face.error]
        rungs = Counter(face.rung or face.treatment or "restored" for face in changed)
        how = ", ".join(f"{rung} {number}" for rung, number in sorted(rungs.items()))
        parts = [f"preset {self.preset}", f"faces changed {len(changed)}{f' ({how})' if how else ''}"]
        return "; ".join([*parts, *([f"background {background}"] if background else [])])

    @property
    def resolved(self) -> dict[str, Any]:
        """For the fingerprint."""
        return {"label": {"form": FORM, "preset": self.preset, "date": self.date}}
