"""Faces are found in tars and folders, local and on S3; what is broken among them is left out by name."""

import io
import tarfile
from pathlib import Path

import pytest
import torch

from pipeline.datasets.faces import SampleError, find_faces
from pipeline.io import store
from pipeline.training.loop import LoopConfig, Trainer
from pipeline.training.samples import FaceSamples, StepSampler, stack
from pipeline.training.workers import SINGLE_PROCESS


@pytest.fixture(scope="module")
def pictures(shards):
    """Name and bytes of each face of the first shard."""
    with tarfile.open(Path(shards).parent / "train-000.tar") as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}


def tar_of(members):
    """A tar of these files; a member without bytes is a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "elsewhere.png"
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    return buffer.getvalue()


def samples(found):
    return FaceSamples(found.faces, 32, 0, None, flip=False)


def test_a_folder_of_pictures_gives_the_samples_of_the_tar_that_holds_them(pictures, tmp_path):
    for name, data in pictures.items():
        store.write_bytes(str(tmp_path / "folder" / name), data)
    store.write_bytes(str(tmp_path / "one.tar"), tar_of(pictures))
    folder, tar = (samples(find_faces(str(tmp_path / name))) for name in ("folder", "one.tar"))
    for i in range(8):
        assert torch.equal(folder[i]["hq"], tar[i]["hq"])


def test_shards_on_s3_give_the_samples_of_local_ones(pictures, tmp_path, s3):
    places = [str(tmp_path), f"{s3.uri}/aligned"]
    for place in places:
        store.write_bytes(store.join(place, "train-0.tar"), tar_of(pictures))
    local, remote = (samples(find_faces(f"{place}/train-*.tar")) for place in places)
    assert torch.equal(stack([local[i] for i in range(6)])["hq"], stack([remote[i] for i in range(6)])["hq"])


def test_links_and_what_lies_behind_damage_are_left_out_by_name(pictures, tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of(pictures | {"link.png": None}))
    (tmp_path / "b.tar").write_bytes(tar_of(pictures)[:-3000])
    found = find_faces(str(tmp_path))
    first, second = found.left_out.items()
    assert first[0].endswith("a.tar: link.png") and "link" in first[1]
    assert "b.tar: (damaged at byte" in second[0]
    assert 6 < len(found.faces) < 12


def test_a_file_that_is_no_tar_is_refused_by_name(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"something else" * 100)
    with pytest.raises(SampleError, match=r"a\.tar is no readable tar"):
        find_faces(str(tmp_path))


def test_an_unreadable_face_is_passed_over_alike_by_every_worker_and_told_once_a_sample(pictures, tmp_path):
    names = list(pictures)
    broken = dict(pictures) | {names[2]: b"no picture"}
    (tmp_path / "a.tar").write_bytes(tar_of(broken))
    data = samples(find_faces(str(tmp_path)))
    alone = [data[i] for i in range(12)]
    assert [s["passed_over"][0].item() for s in alone].count(2) == 2, "once in each of two epochs"
    for rank in range(2):
        for step, numbers in enumerate(StepSampler(0, 3, 4, rank, 2)):
            for i in numbers:
                assert torch.equal(samples(find_faces(str(tmp_path)))[i]["hq"], alone[i]["hq"]), (rank, step)

    told, metrics = [], []
    trainer = Trainer(
        torch.nn.Conv2d(3, 3, 1), LoopConfig(steps=3, batch=4, log_every=3), SINGLE_PROCESS.device
    )
    batches = [stack([data[i] for i in range(4 * step, 4 * step + 4)]) for step in range(3)]
    trainer.run(
        batches,
        lambda model, batch: model(batch["hq"]).mean(),
        trainer.network,
        lambda step, values: metrics.append(values),
        lambda state: None,
        on_passed_over=told.append,
    )
    assert told == [{2}] and metrics[0]["passed_over"] == 2
    assert "picture" in data.why(2)


def test_too_many_unreadable_faces_in_a_row_end_the_training(pictures, tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of({name: b"no picture" for name in pictures}))
    with pytest.raises(SampleError, match="6 consecutive faces"):
        samples(find_faces(str(tmp_path)))[0]


def test_a_storage_that_does_not_answer_is_no_broken_face(pictures, tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of(pictures))
    data = samples(find_faces(str(tmp_path)))
    (tmp_path / "a.tar").unlink()
    with pytest.raises(store.StoreError):
        data[0]
