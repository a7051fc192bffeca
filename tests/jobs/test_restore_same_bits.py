"""How the work is cut and how many machines share it changes no bit of what is delivered."""

import pytest
from in_process import flows
from photographs import mixed, portraits, read_folder, write_folder

from pipeline.restoration.flow import PUBLISHER_CPUS, READER_CPUS, fit_resources


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Pictures with one face and with none, more faces than one network call takes."""
    return write_folder(tmp_path_factory.mktemp("photos"), mixed() | portraits(12))


@pytest.fixture(scope="module")
def reference(source, tmp_path_factory, restore) -> dict[str, bytes]:
    """What the engine delivers with the preset's slots, all pictures in one unit, without Ray."""
    output = tmp_path_factory.mktemp("reference") / "out"
    with flows():
        assert restore(source, output, "--max-error-rate", "0.5") == 0
    return read_folder(output / "images")


@pytest.fixture(scope="module")
def by_two_engines(source, tmp_path_factory, restore) -> dict[str, bytes]:
    """What two engines deliver over a real Ray, whose workers share small units."""
    output = tmp_path_factory.mktemp("two engines") / "out"
    options = ("--engines", "2", "--readers", "1", "--unit-images", "3", "--shard-images", "5")
    assert restore(source, output, "--max-error-rate", "0.5", *options) == 0
    return read_folder(output / "images")


def differing(delivered: dict[str, bytes], reference: dict[str, bytes]) -> list[str]:
    assert delivered.keys() == reference.keys()
    return [name for name in reference if delivered[name] != reference[name]]


def test_two_engines_on_ray_change_no_bit(reference, by_two_engines):
    assert differing(by_two_engines, reference) == []


def test_slots_units_and_shards_change_no_bit(source, reference, restore, tmp_path):
    options = ("--slots", "24", "--unit-images", "2", "--shard-images", "5")
    with flows():
        assert restore(source, tmp_path / "out", "--max-error-rate", "0.5", *options) == 0
    assert differing(read_folder(tmp_path / "out" / "images"), reference) == []


def test_another_seed_changes_the_restored_pictures_and_no_other(source, reference, restore, tmp_path):
    with flows():
        assert restore(source, tmp_path / "out", "--max-error-rate", "0.5", "--seed", "1") == 0
    delivered = read_folder(tmp_path / "out" / "images")
    untouched = {name for name in reference if delivered[name] == reference[name]}
    assert untouched == {"cat.png", "broken/empty.jpg", "broken/cut off.jpg", "broken/letter.jpg"}


@pytest.mark.parametrize("engines", [1, 3, 4, 9])
def test_however_many_engines_are_wanted_a_reader_and_a_publisher_find_a_cpu(by_two_engines, engines):
    import ray

    resources, device = fit_resources("cpu", engines, 0)
    assert (device, resources.engines, resources.gpus_per_engine) == ("cpu", engines, 0.0)
    taken = engines * resources.cpus_per_engine + READER_CPUS + PUBLISHER_CPUS
    assert resources.cpus_per_engine > 0 and taken <= ray.cluster_resources()["CPU"]
