"""An output goes on with the sides, the label and the steps that it was begun with, where nothing else is asked for."""

from dataclasses import replace

import pytest

from pipeline.ledger.ledger import Ledger
from pipeline.networks.presets import find_preset
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import choose_method, read_stage, settle_method
from pipeline.restoration.start import as_begun, begun_with, method_as_begun

ROWS = [{"side": 192, "above_scale": 1.4, "above_crispness": 0.56}]


def config(output="out", **options):
    return RestoreConfig.of("in", str(output), **options)


def goes_on(chosen, preset):
    return as_begun(chosen, preset, begun_with(chosen))


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        (None, {"label": "xmp", "sides": "preset"}),
        ({"seed": 0}, {"label": "none", "sides": "one"}),
        ({"seed": 0, "label": "xmp"}, {"label": "xmp", "sides": "one"}),
        ({"seed": 0, "sides": ROWS}, {"label": "none", "sides": "preset"}),
    ],
)
def test_a_run_goes_on_as_its_output_was_begun(tmp_path, begun, found):
    if begun is not None:
        Ledger(str(tmp_path), begun).claim("in")
    portrait = find_preset("portrait")
    assert goes_on(config(tmp_path), portrait) == found
    asked = {"label": "none", "sides": "one"}
    assert goes_on(config(tmp_path, **asked), portrait) == asked
    assert goes_on(config(tmp_path, new_run=True), portrait) == {"label": "xmp", "sides": "preset"}
    # the first start of a run says what every later one does
    assert goes_on(config(tmp_path), find_preset("small-srcnn")) == found | {"sides": "one"}


def test_a_run_with_one_side_has_the_fingerprint_of_a_preset_without_larger_ones():
    preset = find_preset("portrait")
    assert preset.every_side == [128, 192]

    def settled(of, **options):
        chosen = config(preset="portrait", **options)
        restorer, fingerprint = settle_method(chosen, *choose_method(chosen, of))
        return [one.side for one in read_stage(chosen, restorer, "stop").larger], fingerprint

    larger, fingerprint = settled(preset, sides="preset")
    assert larger == [192] and fingerprint["sides"] == [dict(row) for row in preset.sides]
    one = settled(preset, sides="one")
    assert one == settled(replace(preset, sides=()), sides="preset")
    assert one == ([], {name: value for name, value in fingerprint.items() if name != "sides"})


@pytest.mark.parametrize(
    ("begun", "last_step"), [(None, 8), ({"seed": 0}, None), ({"seed": 0, "last_step": 8}, 8)]
)
def test_the_last_call_is_made_where_the_output_was_begun_to_make_it(tmp_path, begun, last_step):
    if begun is not None:
        Ledger(str(tmp_path), begun).claim("in")
    chosen, portrait = config(tmp_path, sides="one"), find_preset("portrait")
    preset, method = method_as_begun(chosen, portrait, begun_with(chosen))
    assert preset == replace(portrait, last_step=last_step)
    assert method.last_step == last_step == settle_method(chosen, preset, method)[1].get("last_step")
    anew = config(tmp_path, new_run=True)
    assert method_as_begun(anew, portrait, begun_with(anew))[0] == portrait


def test_larger_faces_are_left_as_they_were_when_the_output_was_begun(tmp_path):
    portrait = find_preset("portrait")
    begun = {"last_step": 8, "sides": ROWS}
    assert [row["left_below"] for row in portrait.sides] == [2.4]
    preset, _ = method_as_begun(config(tmp_path), portrait, begun)
    assert preset == replace(portrait, sides=tuple(ROWS))
    for other in ([dict(row) for row in portrait.sides], [ROWS[0] | {"above_scale": 9}]):
        assert method_as_begun(config(tmp_path), portrait, begun | {"sides": other})[0] == portrait


@pytest.mark.parametrize("options", [{"task": "colourise"}, {"aligned": True, "alignment": "preset"}])
def test_crops_keep_their_side_where_they_are_given_or_something_is_known_of_them(options):
    chosen = config(preset="portrait", sides="preset", **options)
    _, fingerprint = settle_method(chosen, *choose_method(chosen))
    assert "sides" not in fingerprint
