import pickle

import pytest
import torch

from pipeline.networks.checkpoint import write_state
from pipeline.networks.preset_text import as_toml, table_lines
from pipeline.networks.presets import (
    PRESETS,
    Preset,
    PresetError,
    build,
    find_preset,
    load_network,
    preset_names,
)

MINE = """
description = "mine"
side = 16
start_step = 100

[prior]
kind = "unet"
file = "mine.safetensors"
licence = "CC0-1.0"
[prior.options]
image_size = 16
model_channels = 32
channel_mult = [1, 2]
num_res_blocks = [1, 1]
attention_resolutions = [8]
num_head_channels = 32
out_channels = 3

[estimator]
kind = "srcnn"
file = "elsewhere.pth"
url = "https://example.org/elsewhere.pth"
[estimator.options]
num_chns = 16
depth = 2
"""


def test_the_presets_of_the_package_are_these():
    assert preset_names() == [
        "codeformer-512",
        "difface-256-inpaint",
        "difface-512-srcnn",
        "difface-512-swinir",
        "gfpgan-512",
        "portrait",
        "portrait-colour",
        "portrait-inpaint",
        "restoreformer-512",
        "small-inpaint",
        "small-srcnn",
        "small-swinir",
    ]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_of_the_package_is_sound_and_travels(name):
    preset = find_preset(name)
    assert preset.name == name
    assert preset.description
    assert preset.prior.options["image_size"] * preset.prior.options.get("patch", 1) == preset.side
    assert pickle.loads(pickle.dumps(preset)) == preset


@pytest.mark.parametrize(
    ("name", "side", "eta", "start_step"),
    [
        *((name, 512, 0.5, 400) for name in preset_names() if "512" in name),
        ("difface-256-inpaint", 256, 1.0, 480),
    ],
)
def test_the_published_presets_have_the_defaults_of_the_official_program(name, side, eta, start_step):
    preset = find_preset(name)
    defaults = (preset.side, preset.eta, preset.start_step, preset.steps, preset.start_rule)
    assert defaults == (side, eta, start_step, "ddim250", "official")


@pytest.mark.parametrize("role", ["prior", "estimator"])
@pytest.mark.parametrize("name", ["small-swinir", "small-srcnn"])
@torch.inference_mode()
def test_small_networks_keep_the_size_of_a_face(name, role):
    spec = getattr(find_preset(name), role)
    net = build(spec)
    assert not net.training
    face = torch.rand(1, 3, 64, 64)
    out = net(face, torch.tensor([7])) if role == "prior" else net(face)
    assert out.shape == face.shape


@pytest.mark.parametrize("name", ["difface-512-swinir", "difface-256-inpaint"])
@pytest.mark.parametrize("role", ["prior", "estimator"])
def test_published_weights_name_their_address_and_licence(name, role):
    spec = getattr(find_preset(name), role)
    assert spec.url == f"https://github.com/zsyOAOA/DifFace/releases/download/V1.0/{spec.file}"
    assert "S-Lab" in spec.licence and "non-commercial" in spec.licence


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(PresetError) as caught:
        find_preset("large")
    assert str(caught.value) == (
        "preset 'large' is not known; choose one of codeformer-512, difface-256-inpaint, difface-512-srcnn, "
        "difface-512-swinir, gfpgan-512, portrait, portrait-colour, portrait-inpaint, restoreformer-512, "
        "small-inpaint, small-srcnn, small-swinir, or give the path of your own .toml file"
    )


def test_a_preset_of_ones_own_works_with_the_file_beside_it(tmp_path):
    (tmp_path / "album.toml").write_text(MINE)
    untrained = build(find_preset(tmp_path / "album.toml").prior)
    write_state(untrained.state_dict(), tmp_path / "mine.safetensors", half=False)
    preset = find_preset(str(tmp_path / "album.toml"))
    assert preset == Preset(
        name="album",
        side=16,
        prior=preset.prior,
        estimator=preset.estimator,
        start_step=100,
        lanes_cpu=4,
        lanes_gpu=16,
    )
    assert preset.prior.file == str(tmp_path / "mine.safetensors")
    assert preset.estimator.file == "elsewhere.pth"
    net = load_network(preset.prior, preset.prior.file)
    for name, tensor in untrained.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("side = 16", "", "side must be given"),
        ("side = 16", "side = 16\nsize = 3", "size not known; write side"),
        ("side = 16", 'side = "16"', "side must be a whole number, got '16'"),
        ("side = 16", "side = true", "side must be a whole number, got True"),
        ("side = 16", "side = 32", "image_size times its patch must be the preset's side 32, got 16"),
        ("side = 16", "side = 16\neta = 1.5", "eta must be from 0 to 1, got 1.5"),
        (
            "start_step = 100",
            "start_step = 400\nmax_step = 300",
            "start_step <= max_step <= 999, got 400 and 300",
        ),
        ("side = 16", 'side = 16\nstart_rule = "mine"', "start_rule must be official or paper, got 'mine'"),
        ("side = 16", "side = 16\nlast_step = 100", "last_step must be from 0 to below start_step, got 100"),
        ("side = 16", "side = 16\nlanes_cpu = 0", "lanes_cpu and lanes_gpu must be at least 1"),
        ("side = 16", "side = 16\ntask_start = { upscale = 1000 }", "must hold steps from 1 to 999"),
        (
            "side = 16",
            "side = 16\ntask_start = { sing = 100 }",
            "are for restore, inpaint, colourise, upscale",
        ),
        (
            'kind = "srcnn"',
            'kind = "unet"',
            "kind must be srcnn or swinir or nafnet or lama or spandrel, got 'unet'",
        ),
        ('file = "elsewhere.pth"', "", r"\[estimator\]: file must be given"),
        ("depth = 2", "deep = 2", "hold deep; they must be among num_chns, depth"),
        ("image_size = 16", "", "options of a unet lack image_size"),
        ("num_res_blocks = [1, 1]", "num_res_blocks = [1]", "one entry per level: wanted 2"),
        (
            "num_res_blocks = [1, 1]",
            "num_res_blocks = 1",
            "num_res_blocks of a unet must be a list of whole numbers",
        ),
        ("side = 16", "side = = 16", "not valid TOML"),
        *(
            ("[prior]", f"[[sides]]\n{lines}\n[prior]", r"\[\[sides\]\] rows must have side \(whole, rising")
            for lines in (
                "side = 24\nabove_scale = 1.5",
                "side = 16\nabove_scale = 1.5\nabove_crispness = 0.5",
                "side = 25\nabove_scale = 1.5\nabove_crispness = 0.5",
                "side = 24.0\nabove_scale = 1.5\nabove_crispness = 0.5",
                "side = 24\nabove_scale = 0\nabove_crispness = 0.5",
                "side = 24\nabove_scale = 1.5\nabove_crispness = 0.5\nabove = 1",
                "side = 24\nabove_scale = 1.5\nabove_crispness = 0.5\nleft_below = 0",
            )
        ),
        *(
            (
                "[prior]",
                f"[spread]\n{line}\n[prior]",
                r"\[spread\] holds invented, degrees above 0, got \{.*\}",
            )
            for line in (
                "invented = 0",
                "invented = -2.5",
                "invented = true",
                "invented = inf",
                "invented = nan",
                'invented = "6"',
                "levels = 3",
                "invented = 6\nlevels = 3",
            )
        ),
        ("side = 16", "side = 16\nspread = 6", "spread must be a table, got 6"),
    ],
)
def test_a_wrong_preset_is_refused_with_file_place_and_remedy(tmp_path, old, new, words):
    assert old in MINE
    (tmp_path / "album.toml").write_text(MINE.replace(old, new))
    with pytest.raises(PresetError, match=rf"album\.toml.*{words}"):
        find_preset(tmp_path / "album.toml")


def test_a_preset_keeps_what_predicts_the_error_of_a_face(tmp_path):
    table = {"offset": -0.5, "change": [-1.5, 2.0, 0.3, 0.1]}
    lines = "\n".join(table_lines("error", table))
    (tmp_path / "album.toml").write_text(MINE.replace("[prior]", f"{lines}\n[prior]"))
    assert find_preset(tmp_path / "album.toml").error == table
    assert "change = [-1.5, 2.0, 0.3, 0.1]" in as_toml(find_preset(tmp_path / "album.toml"))


def test_a_preset_says_when_a_face_counts_as_invented(tmp_path):
    (tmp_path / "album.toml").write_text(MINE.replace("[prior]", "[spread]\ninvented = 6.5\n[prior]"))
    (tmp_path / "silent.toml").write_text(MINE)
    assert find_preset(tmp_path / "album.toml").spread == {"invented": 6.5}
    assert find_preset(tmp_path / "silent.toml").spread == {} != find_preset("portrait").spread


def test_a_preset_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PresetError, match=r"none\.toml can not be read"):
        find_preset(tmp_path / "none.toml")


def test_a_task_may_have_a_start_of_its_own():
    preset = find_preset("small-swinir")
    assert (preset.start_of("restore"), preset.start_of("colourise")) == (160, 400)


def test_a_task_may_have_calls_of_its_own(tmp_path):
    preset = find_preset("portrait-inpaint")
    assert preset.calls_of("inpaint") == preset.task_calls["inpaint"] and preset.calls_of("upscale") is None
    assert (
        find_preset("portrait").calls_of("restore") == 3
        and find_preset("portrait").calls_of("inpaint") is None
    )


def test_the_example_of_the_readme_is_a_preset(tmp_path):
    example = (PRESETS / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "example.toml").write_text(example)
    preset = find_preset(tmp_path / "example.toml")
    assert (preset.side, preset.max_step) == (64, 999)
    build(preset.estimator)
