"""The job that lists, fetches, mirrors and checks models; tiny networks on a web site and a bucket of the tests."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from spandrel.architectures.ESRGAN import ESRGAN
from website import Site, published

from jobs import models as job
from pipeline.console.commands import BAD_ARGUMENTS, INTERRUPTED
from pipeline.io import store, weights
from pipeline.io.weights import Published, resolve
from pipeline.models.catalogue import Model, WeightsFile, known_models
from pipeline.models.operations import fetch, initial_status
from pipeline.models.options import ModelsConfig
from pipeline.models.run import DONE, FAILED
from pipeline.networks.presets import find_preset, load_network
from tests import golden_data as golden

FILES = {kind: f"{kind}_tiny.safetensors" for kind in ("unet", "lama", "srcnn")}
PRIOR, ESTIMATOR = FILES["unet"], FILES["lama"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DIFFACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def site() -> Iterator[Site]:
    with published() as one:
        one.files = {name: (golden.GOLDEN / name).read_bytes() for name in FILES.values()}
        yield one


@pytest.fixture
def album(tmp_path, site) -> Path:
    """A preset of one's own, whose files lie at published addresses."""
    return write_preset(tmp_path / "album.toml", "lama", site)


def write_preset(path: Path, estimator: str, site: Site) -> Path:
    """A preset file of the golden prior and this estimator."""
    lines = ['description = "tiny"', "side = 32", "eta = 1.0", "start_step = 480"]
    for role, kind in (("prior", "unet"), ("estimator", estimator)):
        options = golden.network_spec(kind).options
        lines += [
            f"[{role}]",
            f'kind = "{kind}"',
            f'file = "{FILES[kind]}"',
            f'url = "{site.root}/{FILES[kind]}"',
            'licence = "CC0-1.0"',
            f"[{role}.options]",
            *[f"{name} = {json.dumps(value)}" for name, value in options.items()],
        ]
    path.write_text("\n".join(lines))
    return path


def statuses(capsys, *argv: str, code: int = DONE) -> list[dict[str, Any]]:
    """The status of each file in the JSON output."""
    capsys.readouterr()
    assert job.main([*argv, "--json", "-"]) == code
    values = json.loads(capsys.readouterr().out)
    assert values["exit_code"] == code
    return values["files"]


def test_the_list_names_every_model_with_its_files_licences_and_locations(capsys):
    assert job.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["MODEL", "SIDE", "USE", "FILE", "SIZE", "FOUND", "LICENCE"]
    named = {line.split()[0] for line in lines if not line.startswith(" ")} - {"MODEL"}
    assert named == set(known_models()) >= {"difface-512-swinir", "small-srcnn", "retinaface-resnet50"}
    (published_line,) = [line for line in lines if "lama_inpainting256.pth" in line]
    assert published_line.split(maxsplit=3)[1:3] == ["-", "missing"]
    assert published_line.endswith("NTU S-Lab License 1.0 (non-commercial)")
    (prior,) = [line for line in lines if line.startswith("difface-256-inpaint")]
    assert prior.split()[1:4] == ["256", "inpainting", "iddpm_ffhq256_ema750000.pth"]
    uses = {line.split()[0]: line.split()[2] for line in lines if not line.startswith(" ")}
    assert (uses["realesrgan-x4plus"], uses["lpips"]) == ("background", "metric")
    embedded = [line for line in lines if "small_" in line or "portrait_" in line]
    assert len(embedded) == 12
    assert all(re.search(r" \d+\.\d MB +package +Apache-2\.0; trained on ", line) for line in embedded)


def test_a_background_network_and_a_metrics_are_fetched_checked_and_mirrored_as_others_are(
    tmp_path, site, capsys, monkeypatch
):
    network = ESRGAN(num_filters=4, num_blocks=1, scale=2)
    for name, state in (("upscaler.pth", network.state_dict()), ("judge.pth", {"a": torch.zeros(1)})):
        torch.save(state, tmp_path / name)
        site.files[name] = (tmp_path / name).read_bytes()
        one = Published(name, f"{site.root}/{name}", None, "CC0-1.0")
        table = weights.UPSCALER_WEIGHTS if name == "upscaler.pth" else weights.METRIC_WEIGHTS
        monkeypatch.setitem(table, name.removesuffix(".pth"), one)
    place = str(tmp_path / "mirror")
    files = statuses(capsys, "fetch", "upscaler", "judge")
    assert [f["state"] for f in files] == ["available, fits its network", "available"]
    statuses(capsys, "mirror", "upscaler", "judge", "--to", place)
    files = statuses(capsys, "check", "upscaler", "judge", "--weights-dir", place)
    assert {(f["file"], f["found"], f["good"]) for f in files} == {
        (f"{name}.pth", found, True) for name in ("upscaler", "judge") for found in ("weights-dir", "cache")
    }


@pytest.mark.parametrize("table", ["UPSCALER_WEIGHTS", "METRIC_WEIGHTS"])
def test_the_page_of_a_proxy_is_not_kept_as_a_network_without_a_digest(
    table, site, cache, capsys, monkeypatch
):
    site.files["page.pth"] = b"<html>log in first</html>"
    one = Published("page.pth", f"{site.root}/page.pth", None, "CC0-1.0")
    monkeypatch.setitem(getattr(weights, table), "page", one)
    (status,) = statuses(capsys, "fetch", "page", code=FAILED)
    assert status["state"].endswith("it was removed from the cache")
    assert not list(cache.rglob("page.pth*.sha256"))


def test_a_preset_of_ones_own_is_listed_without_asking_anybody(album, site, capsys):
    files = statuses(capsys, "list", str(album))
    assert [(f["model"], f["use"], f["file"], f["found"]) for f in files] == [
        ("album", "inpainting", PRIOR, "missing"),
        ("album", "inpainting", ESTIMATOR, "missing"),
    ]
    assert site.asked == []


def test_files_are_fetched_over_a_broken_connection_recorded_and_fit(album, site, capsys):
    size = len(site.files[PRIOR])
    site.breaks = [size // 2]
    files = statuses(capsys, "fetch", str(album))
    assert site.asked == [None, f"bytes={size // 2}-", None]
    assert [(f["file"], f["found"], f["state"]) for f in files] == [
        (PRIOR, "cache", "available, fits its network"),
        (ESTIMATOR, "cache", "available, fits its network"),
    ]
    for one in files:
        assert weights.recorded(one["uri"]) == one["sha256"]
        assert Path(one["uri"]).read_bytes() == site.files[one["file"]]
    assert job.main(["fetch", str(album)]) == 0
    assert f"sha256 {files[0]['sha256']}" in capsys.readouterr().out
    assert len(site.asked) == 3


@pytest.mark.parametrize("kind", ["folder", "bucket"])
@torch.inference_mode()
def test_everything_works_from_a_mirror_without_the_internet(
    kind, tmp_path, album, site, s3, capsys, monkeypatch
):
    place = str(tmp_path / "mirror") if kind == "folder" else f"{s3.uri}/{tmp_path.name}"
    files = statuses(capsys, "mirror", "--to", place, str(album))
    assert [f["state"] for f in files] == [f"copied to {place}"] * 2
    again = statuses(capsys, "mirror", str(album), "--to", place)
    assert [f["state"] for f in again] == [f"already in {place}, verified"] * 2
    names = {PRIOR, ESTIMATOR, f"{PRIOR}.sha256", f"{ESTIMATOR}.sha256", "album.toml"}
    assert {e.path for e in store.list_files(place)} == names
    (tmp_path / "moved.toml").write_bytes(store.read_bytes(f"{place}/album.toml"))

    monkeypatch.setenv("DIFFACE_CACHE", str(tmp_path / "another machine"))
    site.status, asked = 500, len(site.asked)
    moved = str(tmp_path / "moved.toml")
    assert {f["found"] for f in statuses(capsys, "fetch", moved, "--weights-dir", place)} == {"weights-dir"}
    checked = statuses(capsys, "check", moved, "--weights-dir", place)
    assert ("weights-dir", "matches the digest of its record") in {(f["found"], f["state"]) for f in checked}
    spec = find_preset(moved).estimator
    net = load_network(spec, resolve(spec.file, spec.url, spec.sha256, place).path)
    given = golden.arrays("inputs")
    out = net(torch.cat([given["masked"], given["mask"]], dim=1))
    torch.testing.assert_close(out, golden.arrays("estimators")["lama"], rtol=2e-6, atol=2e-6)
    assert len(site.asked) == asked


def test_a_preset_in_a_mirrored_folder_finds_its_files_beside_it(tmp_path, album, capsys):
    statuses(capsys, "mirror", str(album), "--to", str(tmp_path / "mirror"))
    files = statuses(capsys, "list", str(tmp_path / "mirror" / "album.toml"))
    assert [(f["found"], Path(f["uri"]).parent) for f in files] == [("path", tmp_path / "mirror")] * 2


def test_a_damaged_mirror_is_found_out_file_by_file(tmp_path, album, capsys):
    place = str(tmp_path / "mirror")
    statuses(capsys, "mirror", str(album), "--to", place)
    damaged = tmp_path / "mirror" / PRIOR
    damaged.write_bytes(damaged.read_bytes()[:-1])
    files = statuses(capsys, "check", str(album), "--weights-dir", place, code=FAILED)
    assert [(f["file"], f["found"], f["good"]) for f in files] == [
        (PRIOR, "weights-dir", False),
        (PRIOR, "cache", True),
        (ESTIMATOR, "weights-dir", True),
        (ESTIMATOR, "cache", True),
    ]
    assert files[0]["state"].startswith("damaged or another file: its record has sha256")
    (tmp_path / "mirror" / f"{ESTIMATOR}.sha256").unlink()
    files = statuses(capsys, "check", str(album), "--weights-dir", place, code=FAILED)
    assert files[2]["state"] == "no digest is known to compare with"


def test_what_a_web_page_gives_instead_of_weights_is_not_kept(album, site, cache, capsys):
    site.files[PRIOR] = b"<html>please log in</html>"
    files = statuses(capsys, "fetch", str(album), code=FAILED)
    assert [f["good"] for f in files] == [False, True]
    assert "got 26 bytes that are neither" in files[0]["state"]
    assert files[0]["state"].endswith("it was removed from the cache")
    kept = {path.name for path in cache.rglob("*") if path.suffix != ".lock" and path.is_file()}
    assert kept == {ESTIMATOR, f"{ESTIMATOR}.sha256"}
    site.files[PRIOR] = (golden.GOLDEN / PRIOR).read_bytes()
    statuses(capsys, "fetch", str(album))


def test_the_file_of_another_network_is_refused_with_the_names_that_differ_and_kept(
    album, site, cache, tmp_path, capsys
):
    site.files[ESTIMATOR] = (golden.GOLDEN / FILES["srcnn"]).read_bytes()
    assert job.main(["mirror", str(album), "--to", str(tmp_path / "mirror")]) == FAILED
    said = capsys.readouterr().out
    assert f"{ESTIMATOR} (album): error: " in said
    assert "missing (model.1.ffc.convl2l.weight," in said and "surplus (body.0.bias," in said
    assert not (tmp_path / "mirror" / ESTIMATOR).exists()
    # the preset may be what is wrong
    assert [path.read_bytes() for path in cache.rglob(ESTIMATOR)] == [site.files[ESTIMATOR]]


def test_two_presets_share_a_file_that_is_fetched_and_listed_once(album, tmp_path, site, capsys):
    other = write_preset(tmp_path / "other.toml", "srcnn", site)
    files = statuses(capsys, "fetch", str(album), str(other))
    assert [f["file"] for f in files] == [PRIOR, ESTIMATOR, FILES["srcnn"]]
    assert len(site.asked) == 3


def test_missing_files_are_errors_of_a_check_only_where_the_model_was_named(capsys):
    files = statuses(capsys, "check")
    assert {f["state"] for f in files} == {"matches the digest of its model", "not on this machine"}
    (one,) = statuses(capsys, "check", "retinaface-resnet50", code=FAILED)
    assert (one["found"], one["state"]) == ("missing", "not on this machine")


def test_a_file_that_nobody_publishes_says_where_to_put_it(capsys):
    spec = find_preset("difface-512-srcnn").estimator
    file = WeightsFile(spec.file, spec.url, spec.sha256, spec.licence, spec)
    model = Model("difface-512-srcnn", 512, "restoration", (file,))
    config = ModelsConfig("fetch", (model.name,))
    (one,) = fetch(initial_status(model, file), file, config)
    assert not one.good
    assert "has no published address; put it into a folder and give that as --weights-dir" in one.state


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fetch"], "fetch needs the names of models; `list` shows them"),
        (["mirror", "small-srcnn"], "--to is where mirror copies files to"),
        (["fetch", "small-srcnn", "--to", "x"], "--to is where mirror copies files to"),
        (["fetch", "large"], "model 'large' is not known; choose one of"),
        (["check", "--weights-dir", "/nowhere/at/all"], "could not read /nowhere/at/all"),
    ],
)
def test_wrong_arguments_exit_with_2_and_one_sentence(argv, words, capsys):
    try:
        code = job.main(argv)
    except SystemExit as stopped:
        code = stopped.code
    assert code == BAD_ARGUMENTS
    assert capsys.readouterr().err.startswith(f"error: {words}")


def test_another_preset_of_the_same_name_is_not_overwritten_in_a_mirror(tmp_path, album, site, capsys):
    place = str(tmp_path / "mirror")
    statuses(capsys, "mirror", str(album), "--to", place)
    album.write_text(album.read_text().replace("tiny", "changed"))
    assert job.main(["mirror", str(album), "--to", place]) == BAD_ARGUMENTS
    assert "is another preset than" in capsys.readouterr().err
    assert '"tiny"' in (tmp_path / "mirror" / "album.toml").read_text()


def test_an_interrupt_says_that_the_same_command_goes_on(album, monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "download", interrupt)
    assert job.main(["fetch", str(album)]) == INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err
