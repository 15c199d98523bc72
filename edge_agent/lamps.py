"""What the stack light shows: one table from the alarms' picture to lamps, and one blink clock.

Colours are those of IEC 60073 (red: danger, act now; amber: abnormal; green: normal), what blinks and
what is steady is the custom of ISA-18.1: blinking asks for an acknowledgement.

=====================================  =====================  ==========
there is                               its lamp               buzzer
=====================================  =====================  ==========
an alarm active-unacknowledged         blinks fast            if red: on
an alarm active-acknowledged           steady                 off
an alarm cleared-unacknowledged        blinks slowly          if red: on
no alarm, but something is not seen    amber blinks slowly    off
no alarm, and everything is measured   green steady           off
=====================================  =====================  ==========

The lamp of critical and high is red, of medium and low amber; where several rows hold for one lamp, the
first wins. Green is never lit beside another lamp. A shelved alarm lights nothing. The names of the
severities stand beside the lamps, for relays: lit while an alarm of that severity is not normal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

OFF: Final = "off"
ON: Final = "on"
BLINK_SLOW: Final = "blink-slow"
BLINK_FAST: Final = "blink-fast"

SEVERITIES: Final = ("critical", "high", "medium", "low")  # worst first
LAMPS: Final = ("red", "amber", "green", "buzzer")

NORMAL: Final = "normal"
UNACKNOWLEDGED: Final = "active-unacknowledged"
ACKNOWLEDGED: Final = "active-acknowledged"
CLEARED: Final = "cleared-unacknowledged"
SHELVED: Final = "shelved"
STATES: Final = (NORMAL, UNACKNOWLEDGED, ACKNOWLEDGED, CLEARED, SHELVED)

_ROWS: Final = {UNACKNOWLEDGED: BLINK_FAST, ACKNOWLEDGED: ON, CLEARED: BLINK_SLOW}  # first wins
_LAMP_OF: Final = {"critical": "red", "high": "red", "medium": "amber", "low": "amber"}
# IEC 60073: slow flashing 0.4 to 0.8 Hz, normal flashing 1.4 to 2.8 Hz; here 0.5 and 2 Hz.
_HALF_PERIOD_NS: Final = {BLINK_SLOW: 1_000_000_000, BLINK_FAST: 250_000_000}


def picture(alarms: Iterable[tuple[str, str]], *, measuring: bool) -> dict[str, str]:
    """The pattern of every lamp and severity, from ``(severity, state)`` of every alarm.

    ``measuring``: whether everything that should be seen is seen.
    """
    lamps = dict.fromkeys((*LAMPS, *SEVERITIES), OFF)
    shown = {(severity, state) for severity, state in alarms if state in _ROWS}
    for state in reversed(_ROWS):  # the first row is written last
        for severity, _ in (alarm for alarm in shown if alarm[1] == state):
            lamps[_LAMP_OF[severity]] = _ROWS[state]
            lamps[severity] = ON
            if _LAMP_OF[severity] == "red" and state != ACKNOWLEDGED:
                lamps["buzzer"] = ON
    if not shown:
        lamps["green" if measuring else "amber"] = ON if measuring else BLINK_SLOW
    return lamps


def lit(lamps: Mapping[str, str], elapsed_ns: int) -> dict[str, bool]:
    """Which lamps are on, so long after the pattern began; every blinking lamp begins lit."""
    return {
        name: pattern == ON or (pattern in _HALF_PERIOD_NS and elapsed_ns // _HALF_PERIOD_NS[pattern] % 2 == 0)
        for name, pattern in lamps.items()
    }


def next_toggle_ns(lamps: Mapping[str, str], elapsed_ns: int) -> int | None:
    """How long after the pattern began the next lamp changes; None while nothing blinks."""
    halves = {_HALF_PERIOD_NS[pattern] for pattern in lamps.values() if pattern in _HALF_PERIOD_NS}
    return min(((elapsed_ns // half + 1) * half for half in halves), default=None)
