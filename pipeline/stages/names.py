"""Names of pictures that are converted to another kind: never those of other pictures."""

from pipeline.io import layout, store
from pipeline.io.images import CONVERTED, SkippedImage, is_image_name
from pipeline.io.units import Address, Unit


def check_name(unit: Unit, address: Address, name: str) -> None:
    """Raise SkippedImage where a converted picture would have the name of another picture of the input."""
    if unit.kind == "folder":
        is_taken = store.exists(address.uri + name[len(address.member) :])
    else:
        is_taken = any(other.member == name for other in unit.images)
    if is_taken:
        raise SkippedImage(
            "name taken", f"it would be delivered as {name}, which is the name of another picture"
        )


def check_unconverted(output: str, address: Address, data: bytes) -> None:
    """Raise NameRefused where a converted picture was delivered under the name of one that came to the input later.

    data: what is to be delivered under its name. Not to be called for what the same unit delivered before.
    """
    suffix = next((s for s in CONVERTED.values() if address.member.endswith(s)), "")
    came = address.member.removesuffix(suffix)
    if not suffix or not is_image_name(came) or not store.exists(address.uri.removesuffix(suffix)):
        return
    there = store.join(output, layout.image_path(address.member))
    if store.exists(there) and store.read_bytes(there) != data:
        raise store.NameRefused(f"{address.member} was delivered as what {came} was converted to")
