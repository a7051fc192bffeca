"""A reference set is made of shards of aligned faces, and is what their features add up to."""

import numpy as np
import pytest
from photographs import encoded, portrait, write_tar

from jobs.reference import main
from pipeline.metrics.distribution import FeatureStatistics


def test_the_statistics_of_a_shards_faces_are_written(tmp_path, capsys):
    faces = [(f"{n}.png", encoded(portrait(64, 64).rotate(4 * n), "PNG")) for n in range(3)]
    shard = write_tar(tmp_path / "faces.tar", faces)
    assert main(["--shards", str(shard), "--output", str(tmp_path / "r.npz"), "--batch", "2"]) == 0
    made = FeatureStatistics.load(str(tmp_path / "r.npz"))
    assert made.count == 3 and np.trace(made.covariance) > 0
    assert "3 faces" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "why"),
    [(("--side", "32"), "32"), (("--limit", "1"), "expected at least two faces, got 1")],
)
def test_faces_that_make_no_set_are_refused(tmp_path, capsys, options, why):
    shard = write_tar(tmp_path / "faces.tar", [("a.png", encoded(portrait(64, 64), "PNG"))] * 2)
    assert main(["--shards", str(shard), "--output", str(tmp_path / "r.npz"), *options]) == 2
    assert why in capsys.readouterr().err and not (tmp_path / "r.npz").exists()
