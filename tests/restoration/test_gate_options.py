"""Which gates a run asks follows from preset and options, and belongs to what runs must agree in."""

from dataclasses import replace

import pytest

from pipeline.console.options import UsageError
from pipeline.faces.gates import Bounds
from pipeline.networks.presets import find_preset
from pipeline.restoration.config import RestoreConfig, fingerprint
from pipeline.restoration.gates import UNFITTED
from pipeline.restoration.method import _askable, bounds_of, choose_method, settle_method

PORTRAIT = find_preset("portrait")


def bounds(preset=PORTRAIT, **options) -> Bounds | None:
    return bounds_of(RestoreConfig.of("in", "out", **options), preset)


def test_the_presets_own_bounds_are_the_default_and_strict_ones_allow_less():
    normal, strict = bounds(), bounds(gate="strict")
    assert normal == Bounds.from_table(PORTRAIT.gates["normal"])
    for delta in (0.5, 2.0, 4.0, 8.0):
        assert strict.at("identity", delta) < normal.at("identity", delta)
    assert strict.landmarks < normal.landmarks and strict.colour < normal.colour and strict.gain > normal.gain


def test_the_identity_never_allows_what_lies_between_two_persons():
    # of the pairs in docs/gates.md one in twenty is nearer than 23.8 degrees, one in a hundred than 21.1
    assert max(bounds().at("identity", d) for d in range(20)) <= 23.8
    assert max(bounds(gate="strict").at("identity", d) for d in range(20)) <= 21.1


def test_a_preset_without_fitted_gates_is_held_to_what_is_clearly_another_face():
    assert bounds(replace(PORTRAIT, gates={})) == Bounds.from_table(UNFITTED["normal"])


@pytest.mark.parametrize(
    "options", [{"gate": "off"}, {"task": "colourise"}, {"task": "inpaint", "mask": "alpha"}]
)
def test_nothing_is_asked_where_gates_are_off_or_the_task_keeps_what_is_known(options):
    assert bounds(**options) is None


def test_single_bounds_take_the_place_of_the_presets():
    found = bounds(gate_identity=9.0, gate_gain=0.7, gate_colour=float("inf"))
    assert [found.at("identity", d) for d in (0, 9)] == [9.0, 9.0]
    assert (found.gain, found.colour, found.landmarks) == (0.7, None, bounds().landmarks)


def test_faces_that_keep_the_chains_colours_are_not_judged_by_them():
    assert bounds(free_colour=True).colour is None


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"gate_identity": -1.0}, "--gate-identity must be above 0, got -1.0"),
        ({"gate": "off", "gate_gain": 0.5}, "--gate off asks no gate; leave --gate-gain 0.5 out"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(options, what):
    with pytest.raises(UsageError, match=what):
        bounds(**options)


def test_a_table_that_is_none_is_refused_with_its_preset():
    with pytest.raises(
        UsageError, match=r"--preset portrait: \[gates.normal\]: the gates are .* got likeness"
    ):
        bounds(replace(PORTRAIT, gates={"normal": {"likeness": 3}}))


def test_without_the_embeddings_network_its_gate_is_off_and_the_run_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("pipeline.io.weights.PACKAGED", tmp_path)
    monkeypatch.setenv("DIFFACE_CACHE", str(tmp_path / "cache"))
    asked = bounds()
    found = _askable(asked, None)
    assert found == replace(asked, identity=None) and found.landmarks is not None
    said = capsys.readouterr().err
    assert "warning: the gate identity is off: weights file face_embedding.safetensors is in none of" in said


def test_other_gates_are_another_run_and_runs_without_any_are_as_before_there_were_gates():
    def resolved(**options):
        config = RestoreConfig.of("in", "out", preset="small-srcnn", **options)
        preset = find_preset("small-srcnn")
        return settle_method(config, *choose_method(config, preset))[1]

    off, normal, own = resolved(gate="off"), resolved(), resolved(gate_identity=9.0)
    assert "gates" not in off and off["max_crispness"] is None
    assert normal["gates"]["identity"] == [[0.0, 25.0]] and normal["gates"]["gain"] == 0.1
    assert own["gates"]["identity"] == [[0.0, 9.0]]
    assert {k: v for k, v in normal.items() if k != "gates"} == off
    assert fingerprint(RestoreConfig.of("in", "out"), {}).keys().isdisjoint({"gate", "gate_identity"})
