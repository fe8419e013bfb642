"""Drawing the next token: greedy, by temperature, from a nucleus; the same seed the same way.

python -m pytest tests/serving/test_sampling.py
"""

import numpy as np
import pytest

from serving.engine import Sampling
from serving.sampling import CANDIDATES, draw, generator

DRAWS = 4000


def logits_of(probabilities) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32))


def shares(logits: np.ndarray, **settings: object) -> np.ndarray:
    sampling = Sampling(max_tokens=1, seed=3, **settings)
    random = generator(sampling)
    drawn = [draw(logits, sampling, random) for _ in range(DRAWS)]
    return np.bincount(drawn, minlength=len(logits)) / DRAWS


def test_greedy_takes_the_likeliest_and_no_random_number():
    sampling = Sampling(max_tokens=1)
    random = generator(Sampling(max_tokens=1, seed=1))
    state = random.bit_generator.state
    assert draw(logits_of([0.2, 0.5, 0.3]), sampling, random) == 1
    assert random.bit_generator.state == state


def test_shares_are_the_probabilities():
    assert shares(logits_of([0.1, 0.6, 0.3]), temperature=1.0) == pytest.approx([0.1, 0.6, 0.3], abs=0.03)


def test_temperature_sharpens_and_flattens():
    logits = logits_of([0.1, 0.6, 0.3])
    for temperature in (0.5, 2.0):
        expected = np.array([0.1, 0.6, 0.3]) ** (1 / temperature)
        assert shares(logits, temperature=temperature) == pytest.approx(expected / expected.sum(), abs=0.03)


@pytest.mark.parametrize("temperature", [1e-30, 1e-3])
def test_a_temperature_near_zero_is_greedy_and_overflows_nothing(temperature):
    assert shares(np.array([1e4, 3e4, -1e30], np.float32), temperature=temperature).tolist() == [0, 1, 0]


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p():
    logits = logits_of([0.05, 0.5, 0.25, 0.2])
    assert shares(logits, temperature=1.0, top_p=0.5).tolist() == [0, 1, 0, 0]
    assert shares(logits, temperature=1.0, top_p=0.6) == pytest.approx([0, 2 / 3, 1 / 3, 0], abs=0.03)
    assert shares(logits, temperature=1.0, top_p=0.9) == pytest.approx([0, 0.526, 0.263, 0.21], abs=0.03)
    assert shares(logits, temperature=1.0, top_p=1e-9).tolist() == [0, 1, 0, 0]


def test_a_wide_nucleus_is_found_beyond_the_first_candidates():
    size = 8 * CANDIDATES
    found = shares(np.zeros(size, np.float32), temperature=1.0, top_p=0.5)
    # all are alike, so the first half of the ids is the set
    assert np.flatnonzero(found).max() < size // 2
    assert np.flatnonzero(found).size > size // 4


def test_a_seed_repeats_itself_and_none_does_not():
    logits = np.random.default_rng(0).normal(size=5000).astype(np.float32)

    def several(seed: int | None) -> list[int]:
        sampling = Sampling(max_tokens=1, temperature=1.0, top_p=0.9, seed=seed)
        random = generator(sampling)
        return [draw(logits, sampling, random) for _ in range(20)]

    assert several(5) == several(5)
    assert several(5) != several(6)
    assert several(None) != several(None)
    assert several(2**64 - 1) == several(2**64 - 1)
