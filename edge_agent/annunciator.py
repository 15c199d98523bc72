"""Alarms as ISA-18.2 knows them: a state machine without a thread and without a clock of its own.

::

                     condition begins                    acknowledge
        normal ───────────────────────▶ active-unacknowledged ─────────▶ active-acknowledged
          ▲ ▲                            │  ▲              ▲                │          │
          │ └──── condition ends ────────┘  │ begins       └── re-alarm ────┘          │
          │       (not latched)      ends   │ again                                    │
          │                        (latched)▼                                          │
          ├────────── acknowledge ── cleared-unacknowledged                            │
          └───────────────────────────── condition ends ───────────────────────────────┘

Shelving lies over all of it: a shelved alarm goes on underneath, unseen, and comes back as what it then is
when the shelf's time is over. A condition that is not known moves nothing: a dead meter clears no alarm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edge_agent.alarms import CHATTERING, Alarm, AlarmError, AlarmSettings, Memory, Remembered
from edge_agent.clock import NS, Stamp, iso
from edge_agent.lamps import LAMPS, NORMAL, ON, SHELVED, picture
from edge_agent.vocabulary import AlarmChange, nearest


class Annunciator:
    """All alarms of a line. Every method takes the instant it happens at and returns who changed state."""

    def __init__(self, alarms: Mapping[str, AlarmSettings]) -> None:
        self._alarms = {name: Alarm(name, settings, settings.rule()) for name, settings in alarms.items()}
        self._first_out: str | None = None
        self._lamp_test_until_ns: int | None = None

    # --- what happens

    def judge(
        self, name: str, condition: bool | None, at: Stamp, cause: str = "", missing: tuple[str, ...] = ()
    ) -> list[AlarmChange]:
        """The condition was looked at; None: not known, because what is ``missing`` gave nothing."""
        alarm = self._alarms[name]
        if condition is None and missing and alarm.settings.on_absent == "raise":
            condition, missing = True, ()
        missing = missing if condition is None else ()
        if missing != alarm.missing:
            alarm.missing = missing
            if alarm.state not in (NORMAL, SHELVED) and condition in (None, alarm.active):
                return [self._change(alarm, at)]
        if condition is alarm.active:
            alarm.turning = None
        elif condition is not None:
            alarm.turning = (alarm.turning[0] if alarm.turning else at, cause)
            return self._turn(alarm, at) if at.mono_ns >= (alarm.turns_at_ns or 0) else []
        return []

    def tick(self, at: Stamp) -> list[AlarmChange]:
        """Time went by: delays, shelves, re-alarms and the lamp test that are due."""
        changes = []
        for alarm in self._alarms.values():
            if _due(alarm.shelved_until_ns, at):
                changes += self._unshelve(alarm, at, "expired")
            if not alarm.rule.is_sampled and _due(alarm.turns_at_ns, at):
                changes += self._turn(alarm, at)
            if _due(alarm.re_alarms_at_ns, at):
                alarm.acknowledged = False
                changes += self._announce(alarm, at, {"re_alarm": True})
        if _due(self._lamp_test_until_ns, at):
            self._lamp_test_until_ns = None
        return changes

    def acknowledge(self, name: str | None, who: str, at: Stamp) -> list[AlarmChange]:
        """Somebody has seen it; ``None``: everything that is in sight. What is shelved is not."""
        changes = []
        for alarm in self._named(name):
            if not alarm.acknowledged and alarm.state != SHELVED:
                alarm.acknowledged, alarm.acknowledged_ns = True, at.mono_ns
                changes += self._announce(alarm, at, {"by": who})
        return changes

    def shelve(self, name: str, seconds: float, who: str, at: Stamp) -> list[AlarmChange]:
        """Take it out of sight for so long; ``0``: take it from the shelf now. Raises AlarmError."""
        (alarm,) = self._named(name)
        if seconds > alarm.settings.shelve_max:
            raise AlarmError(f"{name!r} may be shelved for at most {alarm.settings.shelve_max:g} s")
        if seconds <= 0:
            return self._unshelve(alarm, at, "early", {"by": who}) if alarm.state == SHELVED else []
        alarm.shelved_until_ns = at.mono_ns + int(seconds * NS)
        return self._announce(alarm, at, {"by": who, "until": iso(at.wall_ms + int(seconds * 1000))})

    def lamp_test(self, seconds: float, at: Stamp) -> None:
        """Light every lamp and sound the buzzer for so long; relays stay as they are."""
        self._lamp_test_until_ns = at.mono_ns + int(seconds * NS)

    # --- what is

    def is_active(self, name: str) -> bool:
        """Whether the condition of this alarm holds, shelved or not."""
        return self._alarms[name].active

    def lamps(self, *, measuring: bool) -> dict[str, str]:
        """The pattern of every lamp, as the table in :mod:`edge_agent.lamps` says."""
        lamps = picture(
            ((alarm.settings.severity, alarm.state) for alarm in self._alarms.values()), measuring=measuring
        )
        return lamps if self._lamp_test_until_ns is None else lamps | dict.fromkeys(LAMPS, ON)

    def deadline_ns(self) -> int | None:
        """When :meth:`tick` is next needed, if nothing else happens."""
        due = [self._lamp_test_until_ns]
        for alarm in self._alarms.values():
            due += [alarm.shelved_until_ns, alarm.re_alarms_at_ns]
            due += [] if alarm.rule.is_sampled else [alarm.turns_at_ns]
        return min((instant for instant in due if instant is not None), default=None)

    def snapshot(self, at: Stamp) -> list[dict[str, Any]]:
        """Every alarm as plain values, in the order of the config."""
        return [
            {
                "alarm": alarm.name,
                "state": alarm.state,
                "severity": alarm.settings.severity,
                "when": alarm.settings.when,
                "since": iso(alarm.since.wall_ms) if alarm.since and (alarm.active or not alarm.acknowledged) else None,
                "cause": alarm.cause,
                "pending": alarm.turning is not None,
                "shelved_s": None if alarm.shelved_until_ns is None else (alarm.shelved_until_ns - at.mono_ns) / NS,
                **self._details(alarm, at),
            }
            for alarm in self._alarms.values()
        ]

    # --- across a restart

    def remember(self, at: Stamp, boot_id: str) -> Memory:
        """What must survive a restart: what is not normal, who has seen it, what is on the shelf."""
        return Memory(
            boot_id=boot_id,
            at=at,
            first_out=self._first_out,
            alarms={
                alarm.name: Remembered(
                    when=alarm.settings.when,
                    severity=alarm.settings.severity,
                    active=alarm.active,
                    acknowledged=alarm.acknowledged,
                    since=alarm.since,
                    cause=alarm.cause,
                    shelved_s=max(0.0, (alarm.shelved_until_ns - at.mono_ns) / NS) if alarm.shelved_until_ns else None,
                )
                for alarm in self._alarms.values()
                if alarm.active or alarm.state != NORMAL
            },
        )

    def recall(self, memory: Memory, at: Stamp, boot_id: str) -> list[AlarmChange]:
        """Go on where ``memory`` left off; the changes end those alarms that the config no longer has.

        A shelf goes on running while nobody runs; if nobody can tell for how long, it begins again.
        """
        same_boot = memory.boot_id == boot_id
        gone_s = (at.mono_ns - memory.at.mono_ns) / NS if same_boot else 0.0
        if not same_boot and at.synced and memory.at.synced:
            gone_s = max(0.0, (at.wall_ms - memory.at.wall_ms) / 1000)
        ended = []
        for name, known in memory.alarms.items():
            # Monotonic time of another boot means nothing in this one.
            since = known.since if same_boot or known.since is None else known.since._replace(mono_ns=at.mono_ns)
            alarm = self._alarms.get(name)
            if alarm is None or alarm.settings.when != known.when:
                cause = "no longer in the configuration"
                ended.append(AlarmChange(name, at, NORMAL, known.severity, since or at, cause))
                continue
            alarm.active, alarm.acknowledged, alarm.acknowledged_ns = known.active, known.acknowledged, at.mono_ns
            alarm.since, alarm.cause, alarm.turning = since, known.cause, None
            if known.shelved_s is not None:
                alarm.shelved_until_ns = at.mono_ns + int(max(0.0, known.shelved_s - gone_s) * NS)
        if memory.first_out in self._alarms and self._in_sight():
            self._first_out = memory.first_out
        return ended

    # --- within

    def _turn(self, alarm: Alarm, at: Stamp) -> list[AlarmChange]:
        since, cause = alarm.turning or (at, "")
        alarm.turning = None
        alarm.active = not alarm.active
        alarm.cause = cause
        if alarm.active:
            alarm.since, alarm.acknowledged = since, False
            alarm.began_ns.append(at.mono_ns)
        elif not alarm.settings.latch:
            alarm.acknowledged = True
        return [] if alarm.state == SHELVED else self._announce(alarm, at)

    def _unshelve(
        self, alarm: Alarm, at: Stamp, why: str, details: Mapping[str, object] | None = None
    ) -> list[AlarmChange]:
        alarm.shelved_until_ns = None
        return self._announce(alarm, at, {"unshelved": why, **(details or {})})

    def _announce(self, alarm: Alarm, at: Stamp, details: Mapping[str, object] | None = None) -> list[AlarmChange]:
        if not self._in_sight():
            self._first_out = None
        elif self._first_out is None:
            self._first_out = alarm.name
        return [self._change(alarm, at, details)]

    def _change(self, alarm: Alarm, at: Stamp, details: Mapping[str, object] | None = None) -> AlarmChange:
        severity, since = alarm.settings.severity, alarm.since or at
        return AlarmChange(
            alarm.name, at, alarm.state, severity, since, alarm.cause, {**self._details(alarm, at), **(details or {})}
        )

    def _details(self, alarm: Alarm, at: Stamp) -> dict[str, object]:
        began = alarm.began_last_hour(at.mono_ns)
        said = {
            "first_out": alarm.name == self._first_out,
            "chattering": began >= CHATTERING,
            "input_absent": list(alarm.missing),
        }
        return {"began_last_hour": began, **{name: value for name, value in said.items() if value}}

    def _in_sight(self) -> bool:
        return any(alarm.state not in (NORMAL, SHELVED) for alarm in self._alarms.values())

    def _named(self, name: str | None) -> Iterable[Alarm]:
        if name is None:
            return self._alarms.values()
        if name not in self._alarms:
            raise AlarmError(f"no alarm is called {name!r}{nearest(name, self._alarms)}")
        return (self._alarms[name],)


def _due(instant_ns: int | None, at: Stamp) -> bool:
    return instant_ns is not None and at.mono_ns >= instant_ns
