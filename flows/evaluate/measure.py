"""One answer against the one expected: exact match and token F1 as SQuAD has them, ROUGE-L, refusal, length.

pf flow test --flow flows/evaluate --inputs expected="Bill Gates and Paul Allen." answer="Paul Allen."
"""

from __future__ import annotations

import re
import string
from collections import Counter

from promptflow.core import tool

#: How an assistant begins when it does not answer, by its normal form.
REFUSAL = re.compile(
    r"^(?:(?:i am |im )?(?:sorry|afraid)|unfortunately|i (?:can ?not|cant|do not know|dont know|am unable|am not able)"
    r"|as (?:ai|language model))\b"
)


@tool
def measure(expected: str, answer: str) -> dict[str, float]:
    """exact_match, token_f1, rouge_l, refusal (0 to 1 each) and words of the answer."""
    given, wanted = normalise(answer).split(), normalise(expected).split()
    return {
        "exact_match": float(given == wanted),
        "token_f1": _f1(sum((Counter(given) & Counter(wanted)).values()), given, wanted),
        "rouge_l": _f1(_longest_common_subsequence(given, wanted), given, wanted),
        "refusal": float(is_refusal(answer)),
        "words": float(len(answer.split())),
    }


def normalise(text: str) -> str:
    """SQuAD's normal form: lower case, no punctuation, no articles, single spaces."""
    text = "".join(character for character in text.lower() if character not in string.punctuation + "’")
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def is_refusal(answer: str) -> bool:
    """Whether it declines, or says nothing at all."""
    return not answer.strip() or bool(REFUSAL.match(normalise(answer)))


def _f1(common: int, given: list[str], wanted: list[str]) -> float:
    """F1 of what both have; two empty texts agree."""
    if not given or not wanted:
        return float(given == wanted)
    return 2 * common / (len(given) + len(wanted))


def _longest_common_subsequence(first: list[str], second: list[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for index, other in enumerate(second, 1):
            before, row[index] = row[index], before + 1 if word == other else max(row[index], row[index - 1])
    return row[-1]
