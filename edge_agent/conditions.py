"""The condition of an alarm: what it names, what is known of that, and whether it holds.

A condition is true, false or *not known* (``None``): a quantity that is absent satisfies no comparison,
neither way, and a camera that could not look (``not-inspected``, ``unknown``) has not seen a good part.
``and``, ``or`` and ``not`` are Kleene's, so a rule is known only when what is absent cannot change it.

How a condition is written is in :mod:`edge_agent.rules`.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from edge_agent.vocabulary import JUDGE_FAILED, NOT_INSPECTED, UNITS, UNKNOWN, Reading, Verdict

ABSENT: Final = "absent"
OFFLINE: Final = "offline"
_RECENT: Final = 100  # decisions
BLIND: Final = frozenset({NOT_INSPECTED, UNKNOWN})  # verdicts that say nothing of the part
FALLBACKS: Final = "fallbacks"  # the one quantity of a camera or model, in percent
OPERATORS: Final = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Facts:
    """What is known now of the inputs that some rules name."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._wanted: dict[str, set[str]] = {}
        for leaf in (leaf for rule in rules for leaf in rule.when.leaves()):
            device, _, quantity = leaf.input.partition(".")
            self._wanted.setdefault(device, set()).update({quantity} - {""})
        self.values: dict[str, float] = {}
        self.absent: dict[str, str] = {}  # input → why
        self.offline: dict[str, str] = {}  # device → why, or "" while it answers
        self.labels: dict[str, str] = {}
        self._fell_back: dict[str, deque[bool]] = {}

    def take(self, item: Reading | Verdict) -> None:
        """Note what arrived; a quantity that was not due in this reading stays as it was."""
        if isinstance(item, Verdict):
            self.labels[item.subject] = item.label
            if FALLBACKS in self._wanted.get(item.subject, ()):
                self._count(item)
            return
        if item.values or item.absent:
            self.offline[item.device] = "" if item.values else next(iter(item.absent.values()))
        for quantity in self._wanted.get(item.device, ()):
            key = f"{item.device}.{quantity}"
            if quantity in item.values:
                self.values[key] = item.values[quantity]
                self.absent.pop(key, None)
            elif quantity in item.absent:
                self.absent[key] = item.absent[quantity]
                self.values.pop(key, None)

    def _count(self, verdict: Verdict) -> None:
        """Of the last hundred decisions: the share that was not made by who should make them."""
        recent = self._fell_back.setdefault(verdict.subject, deque(maxlen=_RECENT))
        recent.append(bool(verdict.details.get("failed")) or verdict.reason == JUDGE_FAILED)
        self.values[f"{verdict.subject}.{FALLBACKS}"] = 100.0 * sum(recent) / len(recent)


@dataclass(frozen=True, slots=True)
class Compare:
    """``main-meter.active_power > 45 kW``: the level stays as written and is compared in base units."""

    input: str
    op: str
    level: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.input} {self.limit}"

    @property
    def limit(self) -> str:
        return f"{self.op} {repr(self.level).removesuffix('.0')} {self.unit}".rstrip()

    @property
    def is_rising(self) -> bool:
        return self.op in (">", ">=")

    @property
    def base_unit(self) -> str:
        return UNITS.get(self.unit, (self.unit, 1.0))[0]

    @property
    def factor(self) -> float:
        return UNITS.get(self.unit, (self.unit, 1.0))[1]

    def leaves(self) -> Iterator[Leaf]:
        yield self

    def truth(self, facts: Facts) -> bool | None:
        value = facts.values.get(self.input)
        return None if value is None else bool(OPERATORS[self.op](value, self.level * self.factor))

    def gave_nothing(self, facts: Facts) -> bool:
        return self.input in facts.absent

    def now(self, facts: Facts) -> str:
        if self.input in facts.values:
            return f"{self.input} is {facts.values[self.input] / self.factor:.6g} {self.unit}".rstrip()
        return f"{self.input} is absent ({facts.absent[self.input]})" if self.input in facts.absent else ""


@dataclass(frozen=True, slots=True)
class Is:
    """``cabinet.temperature is absent``, ``main-meter is offline``, ``outfeed is defect``."""

    input: str
    word: str

    def __str__(self) -> str:
        return f"{self.input} is {self.word}"

    @property
    def is_label(self) -> bool:
        return "." not in self.input and self.word != OFFLINE

    def leaves(self) -> Iterator[Leaf]:
        yield self

    def truth(self, facts: Facts) -> bool | None:
        if self.is_label:
            label = facts.labels.get(self.input)
            return None if label is None or self.gave_nothing(facts) else label == self.word
        if self.word == OFFLINE:
            return bool(facts.offline[self.input]) if self.input in facts.offline else None
        return True if self.input in facts.absent else False if self.input in facts.values else None

    def gave_nothing(self, facts: Facts) -> bool:
        label = facts.labels.get(self.input)
        return self.is_label and label in BLIND and label != self.word

    def now(self, facts: Facts) -> str:
        if self.is_label:
            return f"{self.input} is {facts.labels.get(self.input, UNKNOWN)}"
        why = facts.offline.get(self.input) or facts.absent.get(self.input)
        return f"{self} ({why})" if why else f"{self.input} answers"


Leaf = Compare | Is


@dataclass(frozen=True, slots=True)
class Not:
    term: Node

    def __str__(self) -> str:
        return f"not ({self.term})" if isinstance(self.term, Many) else f"not {self.term}"

    def leaves(self) -> Iterator[Leaf]:
        return self.term.leaves()

    def truth(self, facts: Facts) -> bool | None:
        truth = self.term.truth(facts)
        return None if truth is None else not truth


@dataclass(frozen=True, slots=True)
class Many:
    """Two or more terms, joined by ``and`` or ``or``."""

    word: str
    terms: tuple[Node, ...]

    def __str__(self) -> str:
        return f" {self.word} ".join(f"({term})" if self._needs_brackets(term) else str(term) for term in self.terms)

    def _needs_brackets(self, term: Node) -> bool:
        return isinstance(term, Many) and (self.word, term.word) != ("or", "and")

    def leaves(self) -> Iterator[Leaf]:
        return (leaf for term in self.terms for leaf in term.leaves())

    def truth(self, facts: Facts) -> bool | None:
        decides = self.word == "or"
        truths = [term.truth(facts) for term in self.terms]
        return decides if decides in truths else None if None in truths else not decides


Node = Leaf | Not | Many


@dataclass(frozen=True, slots=True)
class Rule:
    """When an alarm's condition begins and, if it says so, at which other level it ends."""

    when: Node
    clear: Compare | None = None

    def __str__(self) -> str:
        return str(self.when)

    @property
    def inputs(self) -> frozenset[str]:
        """The devices, cameras and models that it names; nothing else can change it."""
        return frozenset(leaf.input.partition(".")[0] for leaf in self.when.leaves())

    @property
    def is_sampled(self) -> bool:
        """Whether it is known at the instants of readings and verdicts only.

        That a device is offline stays so until it answers; that a power is high does not.
        """
        return any(isinstance(leaf, Compare) or leaf.is_label for leaf in self.when.leaves())

    def holds(self, facts: Facts, *, held: bool) -> bool | None:
        """Whether the condition is there, ``held`` telling whether it was; None: not known."""
        if held and self.clear is not None:
            cleared = self.clear.truth(facts)
            return None if cleared is None else not cleared
        return self.when.truth(facts)

    def missing(self, facts: Facts) -> tuple[str, ...]:
        """The inputs that should have said something and gave nothing."""
        return tuple(sorted({leaf.input for leaf in self.when.leaves() if leaf.gave_nothing(facts)}))

    def cause(self, facts: Facts) -> str:
        """What its inputs say now, in its own units: ``main-meter.active_power is 46.2 kW``."""
        return "; ".join(dict.fromkeys(now for leaf in self.when.leaves() if (now := leaf.now(facts))))
