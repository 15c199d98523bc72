"""A part sensor on a GPIO line: light barrier, inductive sensor, or an output of the machine's controller.

Wiring. The line takes 3.3 V and no more: sensors of 24 V hang on an opto-isolator or a voltage divider. An NPN
sensor (open collector) pulls the line to ground when it sees a part: ``pull: up``, ``edge: falling``.
"""

from __future__ import annotations

from collections.abc import Callable

from drivers.gpio_lines import Lines
from edge_agent.camera_settings import TriggerSection

_PULLS = {"up": "up", "down": "down", "none": "floating"}


class PartSensor(Lines):
    """One input line. ``open`` raises OutputError, as every claim of a line does."""

    def __init__(self, name: str, settings: TriggerSection) -> None:
        super().__init__(name, settings)
        self._trigger = settings

    def open(self) -> None:
        self.claim({}, self._trigger.line, pull=_PULLS[self._trigger.pull])

    def when_part(self, act: Callable[[], None]) -> None:
        """Call ``act`` (from a thread of the library) at each edge that holds for ``debounce``."""
        self.watch(self._trigger.line, self._trigger.debounce, act, level=self._trigger.edge == "rising")

    def safe(self) -> None:
        """An input has no state to leave."""
