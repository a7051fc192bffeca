"""The whole job over every bad and hostile input at once: each image accounted for, and the output verified."""

import fnmatch
import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile import corpus

from jobs import verify
from pipeline.io.shards import list_input, make_shards
from pipeline.stages.record import storable

pytestmark = pytest.mark.usefixtures("without_ray")


def write_all(folder: Path, sources: Mapping[str, corpus.Source]) -> list[tuple[str, corpus.Expected]]:
    """Every accepted source in a folder of its own; what must become of their images, in the order of the shards."""
    expected: list[tuple[str, corpus.Expected]] = []
    accepted = {f"{i:02d} {name}": s for i, (name, s) in enumerate(sources.items()) if not s.refused}
    if sources is corpus.TARS:
        # what a link leads to depends on what lies in the tar besides
        whole = {
            n: s
            for n, s in accepted.items()
            if corpus.DAMAGED not in dict(s.outcomes).values() and "link" not in n
        }
        accepted = {n: s for n, s in accepted.items() if n not in whole} | {"99 joined": joined(whole)}
    for name, source in accepted.items():
        (folder / name).mkdir(parents=True)
        source.write(folder / name)
        expected += source.outcomes
    return expected


def joined(sources: Mapping[str, corpus.Source]) -> corpus.Source:
    """The undamaged tars as one, because a run takes its time for every shard."""

    def write(folder: Path) -> None:
        parts = []
        for number, source in enumerate(sources.values()):
            own = folder.parent.parent / "parts" / str(number)
            own.mkdir(parents=True)
            source.write(own)
            parts.append((own / "s.tar").read_bytes().removesuffix(corpus.END))
        corpus.tar(*parts)(folder)

    return corpus.Source(write, tuple(o for s in sources.values() for o in s.outcomes))


def assert_outcomes(source: Path, output: Path, expected: list[tuple[str, corpus.Expected]]) -> None:
    """The records hold exactly the expected images in their order."""
    kind, entries = list_input(str(source), "auto")
    found = []
    for shard in make_shards(kind, entries, 1024):
        for path in sorted((output / "records").glob(f"{shard.name}-[0-9][0-9][0-9][0-9].parquet")):
            found += [r for r in pq.read_table(path).to_pylist() if r["kind"] == "image"]
    assert len(found) == len(expected)
    for row, (name, outcome) in zip(found, expected, strict=True):
        # a folder's images are named from the input on
        assert fnmatch.fnmatchcase(row["member"].split("/", kind == "folder")[-1], storable(name)), row
        assert (row["outcome"], row["reason"]) == outcome, row


# the pictures of the folder one stage after the other: tests/hostile/test_corpus.py
@pytest.mark.parametrize("kind", [pytest.param("folder", marks=pytest.mark.slow), "tar", "parquet"])
def test_all_hostile_inputs_of_a_kind_in_one_run_are_accounted_for_and_verified(tmp_path, restore, kind):
    sources = {"folder": corpus.FOLDERS, "tar": corpus.TARS, "parquet": corpus.PARQUETS}[kind]
    source, output = tmp_path / "here" / "in", tmp_path / "there" / "out"
    expected = write_all(source, sources)
    before = sorted(os.walk(tmp_path / "here"))
    assert restore(source, output, "--max-error-rate", "1", "--unit-images", "40", "--calls", "1") == 0
    assert_outcomes(source, output, expected)
    assert verify.main(["--output", str(output)]) == 0
    assert sorted(os.walk(tmp_path / "here")) == before
    assert {p.name for p in tmp_path.iterdir()} == {"here", "there"}
    assert {p.name for p in output.parent.iterdir()} <= {"out", "mlflow.db", "mlartifacts"}


def test_a_compressed_tar_is_refused_and_not_unpacked(tmp_path, restore, capsys):
    (tmp_path / "in").mkdir()
    corpus.TARS["compressed bomb"].write(tmp_path / "in")
    assert restore(tmp_path / "in", tmp_path / "out") == 2
    assert "unpack it to .tar" in capsys.readouterr().err
