"""The sentences of a comparison: what its tables do not hold."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.compare.paired import SAME
from pipeline.reporting.text import words


def asides(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the table of measurements does not hold."""
    same = [words(n) for n, m in summary["metrics"].items() if m["verdict"] == SAME]
    if same:
        yield f"The same for every face: {', '.join(same)}."
    for name, why in summary["left_out"].items():
        yield f"{words(name)} is left out: {why}."
    if summary["pixels"]:
        p = summary["pixels"]
        yield (
            f"Of {p['faces']} sampled faces the two restorations differ by {p['difference']:.2f} of 255 levels in the "
            "mean."
        )


def uncounted(shared: Mapping[str, Any]) -> list[str]:
    """Images and faces that are not compared, a sentence for each kind."""
    forms = {
        "faces_only": "Faces of these images that one run alone found: {} by A, {} by B.",
        "restored_only": "Faces that one run alone restored, and the other left or failed: {} by A, {} by B.",
        "copies": "Further copies of an image that is counted: {} in A, {} in B.",
        "unread": "Images that were never read and have no digest to be known by: {} in A, {} in B.",
    }
    sentences = [text.format(*shared[name]) for name, text in forms.items() if any(shared[name])]
    if shared["other_faces"]:
        sentences.append(
            f"Faces of one number that lie elsewhere in the other run, and are left out: {shared['other_faces']}."
        )
    return sentences
