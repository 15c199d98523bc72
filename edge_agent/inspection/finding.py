"""One thing that was looked at, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from edge_agent.clock import Clock
from edge_agent.errors import EdgeAgentError
from edge_agent.plan import Config

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
DAEMON: Final = "the running daemon has it"


@dataclass(frozen=True, slots=True)
class Finding:
    """``what`` was looked at, ``detail``: what was seen, ``hint``: what to do about it."""

    status: str
    what: str
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to look at. ``daemon``: the status of the running daemon; empty when none runs."""

    config: Config
    clock: Clock
    daemon: dict[str, Any] = field(default_factory=dict)

    def fault(self, source: str, what: str) -> Finding | None:
        """What the running daemon says is wrong with a source, as a finding about ``what``; None when nothing is."""
        for fault in self.daemon.get("faults", ()):
            if fault["source"] == source:
                return Finding(FAIL, what, f"{fault['reason']}, says the running daemon", fault["hint"])
        return None


@dataclass(frozen=True, slots=True)
class Step:
    """One look. ``doing``: what to show while it takes its time."""

    doing: str
    look: Callable[[], Iterator[Finding]]


def failed(what: str, error: EdgeAgentError) -> Finding:
    """An error as a finding; its hint on its own."""
    return Finding(FAIL, what, str(error).removesuffix(f" ({error.hint})"), error.hint)
