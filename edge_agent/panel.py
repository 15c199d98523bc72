"""Everything that shows alarms, driven together: one blink clock, and an output that fails leaves the others lit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from edge_agent.clock import NS
from edge_agent.contracts import Outputs
from edge_agent.errors import OutputError
from edge_agent.health import Health
from edge_agent.lamps import lit, next_toggle_ns
from edge_agent.schedule import Backoff


@dataclass(slots=True)
class _Driven:
    """One output. What fails is given up and tried again later, by itself."""

    output: Outputs
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=2.0, cap_s=60.0))
    is_open: bool = False
    shown: dict[str, bool] | None = None
    retry_ns: int | None = None

    def show(self, lamps: dict[str, bool], now_ns: int, acknowledge: Callable[[], None]) -> None:
        """Raises OutputError after it has noted when to try again."""
        if self.retry_ns is not None and now_ns < self.retry_ns:
            return
        try:
            if not self.is_open:
                self.output.open()
                self.output.when_acknowledged(acknowledge)
                self.is_open = True
            if lamps != self.shown:
                self.output.show(lamps)
                self.shown = lamps
        except OutputError:
            self.close()
            self.retry_ns = now_ns + int(self.backoff.fail() * NS)
            raise
        self.retry_ns = None
        self.backoff.reset()

    def close(self) -> None:
        self.is_open, self.shown = False, None
        self.output.close()


class Panel:
    """The outputs of a line. ``acknowledge``: called, from any thread, when a button is pressed."""

    def __init__(self, outputs: Sequence[Outputs], health: Health, acknowledge: Callable[[], None]) -> None:
        self._driven = [_Driven(output) for output in outputs]
        self._health = health
        self._acknowledge = acknowledge
        self._lamps: dict[str, str] = {}
        self._since_ns = 0
        self._lock = Lock()
        self._is_safe = False

    def show(self, lamps: Mapping[str, str], now_ns: int) -> None:
        """Bring every output up to date. A new pattern begins lit, so that an alarm is seen at once."""
        if lamps != self._lamps:
            self._lamps, self._since_ns = dict(lamps), now_ns
        on = lit(self._lamps, now_ns - self._since_ns)
        with self._lock:
            for driven in () if self._is_safe else self._driven:
                source = f"output.{driven.output.name}"
                try:
                    driven.show(on, now_ns, self._acknowledge)
                except OutputError as error:
                    self._health.fault(source, str(error.args[0]), hint=error.hint)
                else:
                    if driven.is_open:
                        self._health.clear(source)

    def deadline_ns(self, now_ns: int) -> int | None:
        """When :meth:`show` is next needed although nothing changed: to blink, or to try a lost output again."""
        retries = [driven.retry_ns for driven in self._driven if driven.retry_ns is not None]
        toggle_ns = next_toggle_ns(self._lamps, now_ns - self._since_ns)
        if toggle_ns is not None and any(driven.is_open for driven in self._driven):
            retries.append(self._since_ns + toggle_ns)
        return min(retries, default=None)

    def safe(self) -> None:
        """Go to the safe state for good, from any thread: nothing is shown after this."""
        with self._lock:
            self._is_safe = True
            for driven in self._driven:
                try:
                    driven.output.safe()
                except OutputError as error:
                    self._health.fault(f"output.{driven.output.name}", str(error.args[0]), hint=error.hint)

    def close(self) -> None:
        """Leave the outputs in their safe state; :meth:`show` would open them again."""
        with self._lock:
            for driven in self._driven:
                driven.close()


def safe_state(outputs: Sequence[Outputs]) -> list[OutputError]:
    """Leave every output in its safe state; what could not be.

    For the moment after the agent died (``ExecStopPost``): the lines are free then, and the process that calls
    this ends at once, so nothing is closed.
    """
    failed = []
    for output in outputs:
        try:
            output.open()
            output.safe()
        except OutputError as error:
            failed.append(error)
    return failed
