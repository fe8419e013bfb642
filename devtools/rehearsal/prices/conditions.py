"""`$filter` of the price list, read and applied: the part of OData that price queries are written in.

    wanted = conditions.read("armRegionName eq 'eastus2' and contains(meterName, 'Spot')")
    [item for item in items if wanted(item)]

eq, ne, gt, ge, lt, le; contains, startswith, endswith; and, or, not; parentheses. Field names do not tell upper from
lower case, values do, as in the real list.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

Condition = Callable[[dict[str, Any]], bool]

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<word>\w+)|(?P<sign>[(),]))")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "startswith": str.startswith,
    "endswith": str.endswith,
}


def read(text: str) -> Condition:
    """The condition that a filter states; raises ValueError where it cannot be read."""
    tokens = _tokens(text)
    condition = _or(tokens)
    if tokens:
        raise ValueError(f"there is something behind its end: {tokens[0][1]}")
    return condition


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"at {text[at : at + 20]!r}")
        found.append((str(match.lastgroup), match[match.lastgroup or 0]))
        at = match.end()
    return found


def _or(tokens: list[tuple[str, str]]) -> Condition:
    terms = [_and(tokens)]
    while _took(tokens, "or"):
        terms.append(_and(tokens))
    return lambda item: any(term(item) for term in terms)


def _and(tokens: list[tuple[str, str]]) -> Condition:
    terms = [_term(tokens)]
    while _took(tokens, "and"):
        terms.append(_term(tokens))
    return lambda item: all(term(item) for term in terms)


def _term(tokens: list[tuple[str, str]]) -> Condition:
    if _took(tokens, "not"):
        inner = _term(tokens)
        return lambda item: not inner(item)
    if _took(tokens, "("):
        inner = _or(tokens)
        _expect(tokens, ")")
        return inner
    kind, word = _next(tokens)
    if kind != "word":
        raise ValueError(f"a field was expected, not {word}")
    if _took(tokens, "("):
        return _call(word, tokens)
    compare = _COMPARE.get(_next(tokens)[1].lower())
    if compare is None:
        raise ValueError(f"{word} is compared with none of {', '.join(_COMPARE)}")
    wanted = _value(tokens)
    return lambda item: _same_kind(_field(item, word), wanted) and compare(_field(item, word), wanted)


def _call(name: str, tokens: list[tuple[str, str]]) -> Condition:
    test = _TEXTS.get(name.lower())
    if test is None:
        raise ValueError(f"there is no function {name}")
    field = _next(tokens)[1]
    _expect(tokens, ",")
    part = str(_value(tokens))
    _expect(tokens, ")")
    return lambda item: test(str(_field(item, field)), part)


def _value(tokens: list[tuple[str, str]]) -> str | float | bool:
    kind, word = _next(tokens)
    if kind == "text":
        return word[1:-1].replace("''", "'")
    if kind == "number":
        return float(word)
    if word in ("true", "false"):
        return word == "true"
    raise ValueError(f"a value was expected, not {word}")


def _field(item: dict[str, Any], name: str) -> Any:
    # the list calls the field `type`, filters may call it priceType
    wanted = "type" if name.lower() == "pricetype" else name.lower()
    return next((value for key, value in item.items() if key.lower() == wanted), None)


def _same_kind(value: Any, wanted: Any) -> bool:
    return isinstance(value, str) == isinstance(wanted, str) and value is not None


def _took(tokens: list[tuple[str, str]], word: str) -> bool:
    if tokens and tokens[0][0] in ("word", "sign") and tokens[0][1].lower() == word:
        del tokens[0]
        return True
    return False


def _next(tokens: list[tuple[str, str]]) -> tuple[str, str]:
    if not tokens:
        raise ValueError("it ends too early")
    return tokens.pop(0)


def _expect(tokens: list[tuple[str, str]], word: str) -> None:
    if not _took(tokens, word):
        raise ValueError(f"{word} was expected" + (f", not {tokens[0][1]}" if tokens else ""))
