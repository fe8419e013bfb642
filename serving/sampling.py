"""The next token of a sequence: one implementation for every engine, so that a seed draws alike on all of them.

    from serving.sampling import draw, generator

Each sequence has a random generator of its own: what it draws does not depend on what else is in the batch.
"""

from __future__ import annotations

import numpy as np

from serving.engine import Sampling

#: Candidates that nucleus sampling sorts before it sorts the whole vocabulary: nearly always enough, far cheaper.
CANDIDATES = 512


def generator(sampling: Sampling) -> np.random.Generator:
    """The random numbers of one sequence: from its seed, or from the system where it has none."""
    return np.random.default_rng(sampling.seed)


def draw(logits: np.ndarray, sampling: Sampling, random: np.random.Generator) -> int:
    """The next token id.

    Args:
        logits: shape (vocabulary,), float32, of the last position.
        random: the sequence's own generator; one number is taken from it for each token, none when greedy.

    Top-p keeps the smallest set of likeliest tokens whose probabilities sum to `top_p` or more (Holtzman et al. 2019,
    "The Curious Case of Neural Text Degeneration"), the likeliest one always.
    """
    if sampling.temperature == 0:
        return int(logits.argmax())
    # in float64: a temperature near 0 overflows float32
    scaled = (logits.astype(np.float64) - logits.max()) / sampling.temperature
    weights = np.exp(scaled)
    tokens = None
    if sampling.top_p < 1:
        tokens = _nucleus(weights, sampling.top_p)
        weights = weights[tokens]
    sums = weights.cumsum()
    place = int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
    place = min(place, len(sums) - 1)
    return place if tokens is None else int(tokens[place])


def _nucleus(weights: np.ndarray, top_p: float) -> np.ndarray:
    """Ids of the likeliest tokens that together have `top_p` of all weight, likeliest first."""
    wanted = top_p * weights.sum()
    for count in (CANDIDATES, len(weights)):
        likeliest = np.argpartition(weights, -count)[-count:] if count < len(weights) else np.arange(len(weights))
        # stable and by id among equals, so that the order never depends on how they were partitioned
        likeliest = likeliest[np.lexsort((likeliest, -weights[likeliest]))]
        sums = weights[likeliest].cumsum()
        if sums[-1] >= wanted or count >= len(weights):
            break
    return likeliest[: int(np.searchsorted(sums, wanted, side="left")) + 1]
