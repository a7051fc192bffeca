import math

import pytest
import torch

from pipeline.diffusion.noise import DRAW_X_N, NoiseKey, key_tensor, noise_key, normal_noise, philox4x32

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SHAPE = (3, 32, 32)


def draw(faces: list[NoiseKey], steps: list[int], shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return normal_noise(key_tensor(faces), torch.tensor(steps), shape)


# Known-answer vectors of philox4x32-10 from Random123's own kat_vectors.
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, answer):
    def words(text):
        return tuple(torch.tensor(int(word, 16)) for word in text.split())

    assert [f"{int(w):08x}" for w in philox4x32(words(counter), words(key))] == answer.split()


def test_values_are_box_muller_of_the_published_words():
    # The first block of an all-zero key and step 0 is the first known answer.
    a, b, c, d = ((int(w, 16) + 0.5) / 2**32 for w in ("6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"))
    wanted = [
        math.sqrt(-2 * math.log(radius)) * turn(2 * math.pi * angle)
        for radius, angle in ((a, b), (c, d))
        for turn in (math.cos, math.sin)
    ]
    values = draw([NoiseKey((0, 0, 0, 0))], [0], (4,))[0]
    assert values.tolist() == pytest.approx(wanted, rel=1e-6)


def test_values_are_standard_normal():
    values = draw([noise_key(0, SHA, 0)], [400], (3, 256, 256)).double().flatten()
    n = values.numel()
    mean, variance = values.mean(), values.var()
    skew, kurtosis = (((values - mean) / variance.sqrt()) ** k for k in (3, 4))
    # Five standard errors each.
    assert abs(mean) < 5 / math.sqrt(n)
    assert abs(variance - 1) < 5 * math.sqrt(2 / n)
    assert abs(skew.mean()) < 5 * math.sqrt(6 / n)
    assert abs(kurtosis.mean() - 3) < 5 * math.sqrt(24 / n)
    expected = 0.5 * (1 + torch.erf(torch.linspace(-3, 3, 13, dtype=torch.float64) / math.sqrt(2)))
    below = torch.stack([(values < x).double().mean() for x in torch.linspace(-3, 3, 13)])
    assert (below - expected).abs().max() < 5 * 0.5 / math.sqrt(n)


def test_neighbouring_values_do_not_depend_on_each_other():
    values = draw([noise_key(0, SHA, 0)], [400], (3, 256, 256)).double().flatten()
    for lag in (1, 2, 3, 4, 256):
        # Squares too: the sine and cosine of one pair share their radius.
        for series in (values, values**2 - 1):
            correlation = (series[:-lag] * series[lag:]).mean() / series.square().mean()
            assert abs(correlation) < 5 / math.sqrt(len(values))


@pytest.mark.parametrize(
    ("face", "step"),
    [
        (noise_key(1, SHA, 0), 400),
        (noise_key(0, SHA[::-1], 0), 400),
        (noise_key(0, SHA, 1), 400),
        (noise_key(0, SHA, 0), 396),
        (noise_key(0, SHA, 0), DRAW_X_N),
    ],
    ids=["seed", "image", "face", "step", "first draw"],
)
def test_another_seed_image_face_or_step_gives_unrelated_noise(face, step):
    one, other = draw([noise_key(0, SHA, 0), face], [400, step]).flatten(1).double()
    assert abs((one * other).mean()) < 5 / math.sqrt(one.numel())


@pytest.mark.parametrize("word", range(4))
def test_every_word_of_the_key_counts(word):
    words = [7, 7, 7, 7]
    words[word] ^= 1
    one, other = draw([NoiseKey((7, 7, 7, 7)), NoiseKey(tuple(words))], [5, 5]).flatten(1).double()
    assert abs((one * other).mean()) < 5 / math.sqrt(one.numel())


def test_noise_is_the_same_wherever_the_face_is_in_the_batch():
    faces = [noise_key(3, SHA, i) for i in range(5)]
    steps = [400, 396, 0, DRAW_X_N, 4]
    together = draw(faces, steps)
    for order in ([0], [4, 1], [2, 2, 0], [3, 4, 0, 1, 2]):
        assert torch.equal(draw([faces[i] for i in order], [steps[i] for i in order]), together[order])


def test_noise_of_a_small_picture_starts_like_that_of_a_large_one():
    face = [noise_key(0, SHA, 0)]
    assert torch.equal(draw(face, [8], (5,))[0], draw(face, [8], (40,))[0, :5])


def test_a_key_is_that_of_its_text_and_nothing_else():
    assert noise_key(0, SHA, 0) == noise_key(0, SHA, 0)
    assert len({noise_key(s, h, f) for s in (0, 1) for h in (SHA, SHA[::-1]) for f in (0, 1)}) == 8
    assert all(0 <= word < 2**32 for word in noise_key(0, SHA, 0).words)


def test_the_noise_of_a_face_never_changes_between_versions():
    # Recorded when this was written: another value here changes every restored picture of every user.
    values = draw([noise_key(0, SHA, 0)], [400], (4,))[0]
    recorded = [-1.0089956521987915, 1.8655554056167603, 0.6905757784843445, 0.14912457764148712]
    assert values.tolist() == pytest.approx(recorded, abs=1e-7)
