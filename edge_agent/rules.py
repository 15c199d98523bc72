"""The language of alarm rules: parsed once, and checked against what exists before anything runs.

::

    rule       = all { "or" all }
    all        = term { "and" term }
    term       = "not" term | "(" rule ")" | condition
    condition  = DEVICE.QUANTITY ( ">" | ">=" | "<" | "<=" ) NUMBER [ UNIT ]
               | DEVICE.QUANTITY "is" "absent"
               | DEVICE "is" "offline"
               | SUBJECT "is" LABEL
               | SUBJECT.fallbacks ( ">" | ">=" | "<" | "<=" ) NUMBER "%"
    clear      = ( ">" | ">=" | "<" | "<=" ) NUMBER [ UNIT ]

``SUBJECT`` is a camera or a model, ``LABEL`` what it may say: ``outfeed is defect``. Its ``fallbacks`` are the share of
its last hundred decisions that somebody else made, because its model could not: ``outfeed.fallbacks > 20 %``.
``clear`` completes a rule of one comparison with the level at which its condition ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from edge_agent.conditions import ABSENT, BLIND, FALLBACKS, OFFLINE, OPERATORS, Compare, Is, Many, Node, Not, Rule
from edge_agent.errors import RuleError
from edge_agent.vocabulary import UNITS, Quantity, nearest

__all__ = ["Rule", "check", "parse"]

_TOKEN = re.compile(r"[()]|[<>]=?|[^\s()<>]+")
_INPUT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_]+)?", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_UNIT = re.compile(r"(?:[^\W\d_]|[%°])\S*")
_KEYWORDS: Final = ("and", "or", "not", "is")
_SHARE: Final = Quantity(FALLBACKS, "%", 0, 100)
_DEEPEST: Final = 50  # parentheses and "not"s: more than anybody can read


def parse(text: str, clear: str | None = None) -> Rule:
    """Read a rule and its ``clear`` level; raises RuleError with the column and the nearest right word."""
    parser = _Parser(text)
    when = parser.rule(0)
    parser.expect_end()
    return Rule(when, None if clear is None else _clear(when, clear))


def _clear(when: Node, text: str) -> Compare:
    if not isinstance(when, Compare):
        raise RuleError("clear completes a rule of one comparison, and this is none", hint="leave it out")
    parser = _Parser(text)
    level = parser.comparison(when.input)
    parser.expect_end()
    if level.base_unit != when.base_unit:
        raise RuleError(f"clear is in {level.unit or 'no unit'}, the rule is in {when.unit or 'no unit'}")
    above = level.level * level.factor - when.level * when.factor
    if level.is_rising == when.is_rising or (above >= 0 if when.is_rising else above <= 0):
        side, what = ("<", "below") if when.is_rising else (">", "above")
        raise RuleError(f"{text!r} is no hysteresis for {when.limit!r}", hint=f"write {side!r} and a level {what} it")
    return level


class _Token(NamedTuple):
    text: str
    column: int


class _Parser:
    """Recursive descent over the words of one text."""

    def __init__(self, text: str) -> None:
        self._tokens = [_Token(match[0], match.start() + 1) for match in _TOKEN.finditer(text)]
        self._tokens.append(_Token("", len(text) + 1))
        self._at = 0

    def rule(self, depth: int) -> Node:
        return self._many("or", self._all, depth)

    def _all(self, depth: int) -> Node:
        return self._many("and", self._term, depth)

    def _many(self, word: str, part: Callable[[int], Node], depth: int) -> Node:
        terms = [part(depth)]
        while self._skip(word):
            terms.append(part(depth))
        return terms[0] if len(terms) == 1 else Many(word, tuple(terms))

    def _term(self, depth: int) -> Node:
        if depth > _DEEPEST:
            raise self._error(f"more than {_DEEPEST} brackets deep")
        if self._skip("not"):
            return Not(self._term(depth + 1))
        if self._skip("("):
            inside = self.rule(depth + 1)
            if not self._skip(")"):
                raise self._error("expected ')', 'and' or 'or'", ("and", "or"))
            return inside
        return self._condition()

    def _condition(self) -> Node:
        subject = self._word(_INPUT, "the name of a device, camera or model")
        if not self._skip("is"):
            if "." not in subject and self._here.text in OPERATORS:
                raise self._error(
                    f"{subject!r} has no level: compare one of its quantities, like {subject}.temperature"
                )
            return self.comparison(subject)
        word = self._word(_LABEL, f"what {subject!r} is")
        if "." in subject and word != ABSENT:
            self._at -= 1
            raise self._error(f"a quantity is compared, or it 'is {ABSENT}'", (ABSENT,))
        return Is(subject, word)

    def comparison(self, subject: str) -> Compare:
        op = self._here.text
        if op not in OPERATORS:
            raise self._error("expected '>', '>=', '<', '<=' or 'is'", ("is",))
        self._at += 1
        number = _NUMBER.match(self._here.text)
        if number is None or not math.isfinite(float(number[0])):
            raise self._error("expected a number")
        unit = self._here.text[number.end() :]
        self._at += 1
        if not unit and _UNIT.fullmatch(self._here.text) and self._here.text not in _KEYWORDS:
            unit = self._here.text
            self._at += 1
        elif unit and (unit in _KEYWORDS or not _UNIT.fullmatch(unit)):
            self._at -= 1
            raise self._error("expected a number and its unit")
        return Compare(subject, op, float(number[0]), unit)

    def expect_end(self) -> None:
        if self._here.text:
            raise self._error("expected 'and', 'or' or the end", ("and", "or"))

    @property
    def _here(self) -> _Token:
        return self._tokens[self._at]

    def _skip(self, text: str) -> bool:
        found = self._here.text == text
        self._at += found
        return found

    def _word(self, pattern: re.Pattern[str], what: str) -> str:
        text = self._here.text
        if text in _KEYWORDS or not pattern.fullmatch(text):
            raise self._error(f"expected {what}")
        self._at += 1
        return text

    def _error(self, expected: str, words: Iterable[str] = ()) -> RuleError:
        text, column = self._here
        found = f", not {text!r}{nearest(text.lower(), words)}" if text else ", but the rule ends here"
        return RuleError(f"column {column}: {expected}{found}")


def check(
    rule: Rule, devices: Mapping[str, Mapping[str, Quantity]], subjects: Mapping[str, frozenset[str]]
) -> list[str]:
    """What in a rule does not fit, all at once: unknown names, wrong units, levels that cannot be.

    ``devices``: name → its quantities by name. ``subjects``: camera or model → the labels it may give.
    """
    leaves = [*rule.when.leaves(), *([rule.clear] if rule.clear else [])]
    return list(dict.fromkeys(problem for leaf in leaves for problem in _problems(leaf, devices, subjects)))


def _problems(
    leaf: Compare | Is, devices: Mapping[str, Mapping[str, Quantity]], subjects: Mapping[str, frozenset[str]]
) -> Iterator[str]:
    name, dot, quantity = leaf.input.partition(".")
    if name not in devices and name not in subjects:
        yield f"{name!r} is no device, camera or model{nearest(name, [*devices, *subjects])}"
    elif dot and name not in devices:
        if quantity == FALLBACKS and isinstance(leaf, Compare):
            yield from _level(leaf, _SHARE)
        else:
            says = f"only what it says, like '{name} is defect', and '{name}.{FALLBACKS} > 20 %'"
            yield f"{name!r} is a camera or model: it has no quantities, {says}"
    elif dot and quantity not in devices[name]:
        yield f"{name!r} has no quantity {quantity!r}{nearest(quantity, devices[name])}"
    elif isinstance(leaf, Compare):
        yield from _level(leaf, devices[name][quantity])
    elif not dot:
        words = {OFFLINE} if name in devices else set()
        words |= subjects[name] | BLIND if name in subjects else set()
        if leaf.word not in words:
            yield f"{name!r} is never {leaf.word!r}{nearest(leaf.word, words)}"


def _level(leaf: Compare, quantity: Quantity) -> Iterator[str]:
    """Whether the unit fits the quantity, and the level can be reached."""
    units = [unit for unit, (base, _) in UNITS.items() if base == quantity.unit and unit] or [quantity.unit]
    level = leaf.level * leaf.factor
    if quantity.unit and not leaf.unit:
        yield f"{quantity.name} {leaf.limit} needs its unit, one of {', '.join(units)}"
    elif leaf.base_unit != quantity.unit:
        has = f"is in {', '.join(units)}" if quantity.unit else "has no unit"
        yield f"{quantity.name} {has}: {leaf.limit!r} does not fit{nearest(leaf.unit, units)}"
    elif (quantity.low is not None and level < quantity.low) or (quantity.high is not None and level > quantity.high):
        yield f"{quantity.name} never gets as far as {leaf.limit!r}"
