"""The fit of a preset's table of treatments: bins of δ, bounds, and the choice that never does less at a larger δ."""

import json
from contextlib import closing
from dataclasses import asdict

import numpy as np
import pytest
from skimage import data

from jobs import calibrate
from pipeline.console.options import parse
from pipeline.datasets.faces import FaceAddress
from pipeline.evaluation.calibrate import CalibrateConfig, samples_folder, spread_folder
from pipeline.evaluation.calibration import (
    ESTIMATOR,
    LEFT,
    Bounds,
    Candidate,
    allowed,
    bins_of,
    choose,
    draw,
    summarise,
    table,
)
from pipeline.evaluation.trial import Trial
from pipeline.io import images
from pipeline.networks.presets import find_preset

CHAIN, STRONG = Candidate.parse("100:2:1"), Candidate.parse("252:4:2")
FACES = 20


def measured(faces, **columns):
    """So many faces of which every one measures the same."""
    values = {"psnr": 30.0, "angle": 5.0, "lpips": 0.2, "ssim": 0.8} | columns
    return {name: np.full(faces, value, np.float64) for name, value in values.items()}


def test_bins_hold_about_as_many_faces_and_rise():
    delta = np.array([3.0, 1.0, 2.0, 5.0, 4.0, 0.5])
    assert [delta[m].tolist() for m in bins_of(delta, 2)] == [[1.0, 0.5], [3.0, 2.0], [5.0, 4.0]]
    assert len(bins_of(delta, 100)) == 1


def two_bins(light, heavy):
    """δ of twice FACES faces, and what each candidate measures of the lighter and the heavier half."""
    delta = np.concatenate([np.linspace(0.2, 0.9, FACES), np.linspace(2.1, 4, FACES)])
    found = {}
    for candidate in (LEFT, ESTIMATOR, CHAIN, STRONG):
        halves = [measured(FACES, **half[candidate]) for half in (light, heavy)]
        found[candidate] = {n: np.concatenate([h[n] for h in halves]) for n in halves[0]}
    return delta, found


WORSE = {"psnr": 27.0, "angle": 9.0, "lpips": 0.3}
LIGHT = {LEFT: {}, ESTIMATOR: {}, CHAIN: WORSE, STRONG: WORSE}
HEAVY = {
    LEFT: {"lpips": 0.5},
    ESTIMATOR: {"psnr": 31.0, "angle": 4.0, "lpips": 0.3},
    CHAIN: {"psnr": 30.8, "angle": 4.1, "lpips": 0.2},
    STRONG: {"psnr": 30.1, "angle": 4.1, "lpips": 0.1},
}


def test_the_least_lpips_within_the_bounds_is_chosen_and_a_tie_does_least():
    bins = choose(*two_bins(LIGHT, HEAVY), FACES, Bounds())
    assert [b.chosen for b in bins] == [LEFT, CHAIN], (
        "STRONG loses .9 dB against the estimator, where .5 are allowed"
    )
    assert [b.chosen for b in choose(*two_bins(LIGHT, HEAVY), FACES, Bounds(psnr_loss=1.0))] == [LEFT, STRONG]


def test_the_table_has_a_row_where_the_choice_changes_midway_between_the_bins():
    rows = table(choose(*two_bins(LIGHT, HEAVY), FACES, Bounds()))
    assert rows == [
        {"above": 0, "way": "left"},
        {"above": 1.5, "start_step": 100, "calls": 2, "hold": 1.0},
    ]


def test_a_larger_delta_never_gets_less():
    """Left alone the heavier half would be better off, but then the lighter one must be left, too."""
    light = {LEFT: {"lpips": 0.5}, ESTIMATOR: {"lpips": 0.2}, CHAIN: WORSE, STRONG: WORSE}
    heavy = {LEFT: {"lpips": 0.2}, ESTIMATOR: {"lpips": 0.25, "psnr": 29.0}, CHAIN: WORSE, STRONG: WORSE}
    assert [b.chosen for b in choose(*two_bins(light, heavy), FACES, Bounds())] == [LEFT, LEFT]


def test_a_share_of_harmed_faces_above_the_bound_refuses_a_treatment_unless_chance_explains_it():
    came = measured(FACES, lpips=0.5)
    for harmed, good in ((0, True), (2, True), (5, False), (20, False)):
        out = measured(FACES, psnr=31.0)
        out["lpips"][:harmed] = 0.6
        stats = {LEFT: came, ESTIMATOR: out}
        stats = {c: summarise(came, values, np.ones(FACES, bool)) for c, values in stats.items()}
        assert allowed(ESTIMATOR, stats, Bounds()) == good, harmed


def test_what_nobody_sees_refuses_nothing():
    """A sharp face may lose what lies above 45 dB."""
    came, out = measured(FACES, psnr=68.0), measured(FACES, psnr=50.0)
    stats = {c: summarise(came, v, np.ones(FACES, bool)) for c, v in ((LEFT, came), (ESTIMATOR, out))}
    assert allowed(ESTIMATOR, stats, Bounds())


def test_damage_is_drawn_from_none_to_heavy_and_the_same_for_a_seed():
    drawn = [draw(np.random.default_rng([0, i])) for i in range(300)]
    some = [d for d in drawn if d is not None]
    assert 10 < len(drawn) - len(some) < 60
    assert min(d.blur for d in some) < 0.2 and max(d.blur for d in some) > 2.2
    assert min(d.quality for d in some) < 58 and max(d.quality for d in some) > 94
    assert drawn == [draw(np.random.default_rng([0, i])) for i in range(300)]


@pytest.mark.parametrize("text", ["100:2", "a:b:c", ""])
def test_a_chain_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        calibrate.main(["--faces", "x", "--output", "y", "--chains", text])
    assert stopped.value.code == 2
    assert (
        "--chains must be N:CALLS:SIGMA or N:CALLS:SIGMA:ETA separated by commas" in capsys.readouterr().err
    )


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photographs" / "astronaut.png"
    path.parent.mkdir()
    path.write_bytes(images.encode_png(data.astronaut()[:256, 96:352]))
    return path


@pytest.mark.slow
def test_a_trial_treats_a_face_in_every_way_and_measures_what_would_be_delivered(photograph):
    trial = Trial(find_preset("portrait"), (LEFT, ESTIMATOR, CHAIN), 0, None)
    address = FaceAddress(str(photograph), 0, photograph.stat().st_size)
    with closing(trial):
        [sample, again] = [next(trial.samples(2, address, 1)) for _ in range(2)]
    assert sample.measured == again.measured and sample.delta == again.delta > 0
    assert set(sample.measured) == set(sample.pictures) == {LEFT, ESTIMATOR, CHAIN}
    assert sample.pictures[LEFT].shape == sample.truth.shape == (128, 128, 3)
    assert not np.array_equal(sample.pictures[LEFT], sample.pictures[ESTIMATOR])
    assert not np.array_equal(sample.pictures[ESTIMATOR], sample.pictures[CHAIN])


@pytest.mark.slow
def test_a_trial_draws_several_chains_of_the_faces_that_its_rows_give_one(photograph):
    trial = Trial(find_preset("portrait"), (), 0, None)
    address = FaceAddress(str(photograph), 0, photograph.stat().st_size)
    left, chain = {"above": 0, "way": "left"}, CHAIN.row(0)
    with closing(trial):
        assert list(trial.sampled(2, address, 2, [left], 3)) == []
        [one, other] = trial.sampled(2, address, 2, [chain], 3)
        [again] = trial.sampled(2, address, 1, [chain], 3)
    assert one == again != other
    assert one.photograph == 2 and 0 < one.spread < 20 and 0 < one.spread_identity < 30
    assert 0 < one.angle < 40 and 15 < one.psnr < 60


def test_the_job_goes_on_with_what_was_measured_and_writes_the_table(photograph, tmp_path, capsys):
    """Photographs that were measured before are only read: here no network is loaded."""
    options = [
        "--faces",
        str(photograph.parent),
        "--output",
        str(tmp_path / "out"),
        "--chains",
        "100:2:1,252:4:2",
        "--each",
        str(FACES),
    ]
    config = parse(CalibrateConfig, options, "")
    delta, found = two_bins(LIGHT, HEAVY)
    rows = [
        {"turn": i, "delta": float(d), **asdict(c), **{n: float(v[i]) for n, v in values.items()}}
        | {"gates": {"identity": 3.0 + d, "colour": 2.0, "gain": 0.5}, "embedding": [1.0, i / 40, 0.0]}
        for i, d in enumerate(delta)
        for c, values in found.items()
    ]
    folder = tmp_path / "out" / samples_folder(config)
    folder.mkdir(parents=True)
    (folder / "000000.json").write_text(json.dumps(rows))
    (folder / "000000.png").write_bytes(images.encode_png(np.zeros((5 * 4, 4, 3), np.uint8)))
    treatment = [{"above": 0, "way": "left"}, {"above": 1.5, "start_step": 100, "calls": 2, "hold": 1.0}]
    sampled = tmp_path / "out" / spread_folder(config, treatment)
    sampled.mkdir()
    values = [
        {
            "photograph": 0,
            "delta": d,
            "spread": 2.0 + d,
            "spread_identity": d,
            "angle": 12 + d,
            "psnr": 30.0 - d,
        }
        for d in np.linspace(1, 9, 40)
    ]
    (sampled / "000000.json").write_text(json.dumps(values))
    assert calibrate.main(options) == 0
    text = (tmp_path / "out" / "treatment.toml").read_text()
    chain = "[[treatment]]\nabove = 1.5\nstart_step = 100\ncalls = 2\nhold = 1.0\n"
    assert text.startswith(f'[[treatment]]\nabove = 0\nway = "left"\n\n{chain}')
    assert text in capsys.readouterr().out
    assert "\n[spread]\ninvented = 5.0\n" in text
    assert (tmp_path / "out" / "spread.png").exists()
    assert "above 5 degrees" in (tmp_path / "out" / "treatment.md").read_text()
    # one chain says nothing of a spread
    assert calibrate.main([*options, "--samples", "1"]) == 0
    assert "[spread]" not in (tmp_path / "out" / "treatment.toml").read_text()
    assert "| 2.10 - 4.00 | 20 | N 100, 2 calls, σ 1 |" in (tmp_path / "out" / "treatment.md").read_text()
