"""One alarm: how it is configured, what it is now, and what of it survives a restart."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from edge_agent.clock import NS, Stamp
from edge_agent.errors import EdgeAgentError
from edge_agent.lamps import ACKNOWLEDGED, CLEARED, NORMAL, SHELVED, UNACKNOWLEDGED
from edge_agent.rules import Rule, parse
from edge_agent.settings import Duration, Section

CHATTERING: Final = 10  # times an hour that it began; more, and nobody believes it any more
_HOUR_NS: Final = 3600 * NS


class AlarmSettings(Section):
    """An alarm: when its condition holds, and how it behaves then."""

    when: str = Field(description="The condition, as a rule: `main-meter.active_power > 45 kW`, `outfeed is defect`.")
    clear: str | None = Field(
        default=None, description="Where a comparison ends, on the other side of its level (hysteresis): `< 42 kW`."
    )
    on_delay: Duration = Field(
        default=0.0,
        alias="for",
        ge=0,
        le=86400,
        description="How long the condition must hold before the alarm begins.",
    )
    off_delay: Duration = Field(
        default=0.0, ge=0, le=86400, description="How long the condition must be gone before the alarm ends."
    )
    severity: Literal["critical", "high", "medium", "low"] = Field(
        default="medium",
        description="How bad it is; critical and high light red and sound the buzzer, the others amber.",
    )
    latch: bool = Field(default=False, description="Whether it stays until acknowledged although its condition ended.")
    re_alarm: Duration = Field(
        default=0.0,
        ge=0,
        description="How long after its acknowledgement it sounds again if it still holds; `0s`: never.",
    )
    on_absent: Literal["keep", "raise"] = Field(
        default="keep", description="When its input gives no value: keep the state, or take the condition as true."
    )
    shelve_max: Duration = Field(default=8 * 3600.0, gt=0, description="The longest that anybody may shelve it.")

    @field_validator("when")
    @classmethod
    def _parses(cls, when: str) -> str:
        parse(when)
        return when

    @field_validator("clear")
    @classmethod
    def _clears(cls, clear: str | None, info: ValidationInfo) -> str | None:
        if "when" in info.data:
            parse(info.data["when"], clear)
        return clear

    def rule(self) -> Rule:
        """The condition, parsed; raises RuleError."""
        return parse(self.when, self.clear)


class Remembered(Section):
    """One alarm in the state file; ``shelved_s``: what its shelf still had to run."""

    when: str
    severity: str
    active: bool
    acknowledged: bool
    since: Stamp | None
    cause: str
    shelved_s: float | None


class Memory(Section):
    """The state file: every alarm that was not normal."""

    boot_id: str
    at: Stamp
    first_out: str | None
    alarms: dict[str, Remembered]


class AlarmError(EdgeAgentError, ValueError):
    """Something was asked of an alarm that does not exist, or that it does not allow."""


@dataclass(slots=True)
class Alarm:
    """What is known of one alarm; its state follows from whether it is active, acknowledged and shelved."""

    name: str
    settings: AlarmSettings
    rule: Rule
    active: bool = False
    acknowledged: bool = True
    since: Stamp | None = None
    cause: str = ""
    turning: tuple[Stamp, str] | None = None  # the condition turned then, with that cause; its delay runs
    missing: tuple[str, ...] = ()
    acknowledged_ns: int = 0
    shelved_until_ns: int | None = None
    began_ns: deque[int] = field(default_factory=lambda: deque(maxlen=1000))

    @property
    def state(self) -> str:
        if self.shelved_until_ns is not None:
            return SHELVED
        if self.active:
            return ACKNOWLEDGED if self.acknowledged else UNACKNOWLEDGED
        return NORMAL if self.acknowledged else CLEARED

    @property
    def turns_at_ns(self) -> int | None:
        if self.turning is None:
            return None
        delay_s = self.settings.off_delay if self.active else self.settings.on_delay
        return self.turning[0].mono_ns + int(delay_s * NS)

    @property
    def re_alarms_at_ns(self) -> int | None:
        if not (self.active and self.acknowledged and self.settings.re_alarm):
            return None
        return self.acknowledged_ns + int(self.settings.re_alarm * NS)

    def began_last_hour(self, now_ns: int) -> int:
        while self.began_ns and self.began_ns[0] <= now_ns - _HOUR_NS:
            self.began_ns.popleft()
        return len(self.began_ns)
