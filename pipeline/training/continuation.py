"""Whether a training continues the one in its output."""

import hashlib
import json

from pipeline.console.options import UsageError
from pipeline.datasets.faces import FaceAddress
from pipeline.io import store
from pipeline.training.options import TrainingOptions
from pipeline.training.plan import TrainingPlan

# Settings that cannot change during a training: they determine the samples or the network.
FIXED = ("network", "seed", "batch", "flip", "max_step", "faces", "init")


def check_continues(options: TrainingOptions, plan: TrainingPlan) -> None:
    """Record the settings of this training. Raises UsageError when the output has another one."""
    settings = {
        "network": {"kind": plan.spec.kind} | dict(plan.spec.options),
        "seed": plan.seed,
        "batch": plan.loop.batch,
        "flip": plan.flip,
        "max_step": getattr(plan.objective, "max_step", None),
        "faces": faces_digest(plan.faces),
        "init": plan.init.sha256 if plan.init else None,
    }
    uri = store.join(plan.output, "training.json")
    if store.exists(uri):
        before = json.loads(store.read_bytes(uri))
        changed = [name for name in FIXED if before.get(name) != json.loads(json.dumps(settings[name]))]
        if changed:
            raise UsageError(
                f"{plan.output} has a training with another {' and '.join(changed)}; "
                "give the options it was started with, or a new --output"
            )
    elif not options.dry_run:
        store.check_writable(plan.output)
        about = {"init_file": plan.init.file, "init_licence": plan.init.licence} if plan.init else {}
        store.write_bytes(uri, json.dumps(settings | about, indent=1).encode())


def faces_digest(faces: tuple[FaceAddress, ...]) -> str:
    """Identifies shards by their names and the positions of their faces, independent of the folder."""
    digest = hashlib.sha256()
    for face in faces:
        digest.update(f"{store.name_of(face.shard)} {face.offset} {face.length}\n".encode())
    return digest.hexdigest()[:16]
