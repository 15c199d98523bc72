"""Stack lights, buzzers, relays and the acknowledge button on GPIO lines, through gpiozero.

Wiring. A line gives 3.3 V and a few milliamperes: lamps, buzzers and relays of 24 V hang on a driver board
(ULN2803, opto-isolated relay board; ``active_low`` where the board wants 0 V for "on"). The button goes
between its line and ground; the chip's own pull-up does the rest. Numbers are the chip's (BCM), not the header's.

What stays when nobody drives a line any more. While the process can, it leaves its lines in their safe state
(``on_exit``) and does not close them, because closing makes them inputs. The kernel gives them up when the
process is gone, also after SIGKILL: the kernels of Raspberry Pi OS leave an output as it was, others, and these
with ``dtparam=strict_gpiod``, make it an input, so that the lamp goes dark. Hence :func:`safe_state`, to be run
by ``ExecStopPost``, and ``energised_when: normal`` for relays, which then drop out by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from drivers.gpio_lines import Lines, mock_header
from edge_agent.settings import Duration, Section

Line = Annotated[int, Field(ge=0, le=53)]


class GpioSection(Section):
    """What every output on GPIO lines has."""

    kind: str = Field(description="What kind of output it is.")
    chip: int | None = Field(
        default=None,
        ge=0,
        description="Number of the /dev/gpiochip; without it the one with the 40-pin header is found.",
    )
    active_low: bool = Field(default=False, description="Whether the board behind the lines wants 0 V for on.")


class StackLightSettings(GpioSection):
    """A stack light with buzzer and acknowledge button; every line may be left out."""

    red: Line | None = Field(default=None, description="Line of the red lamp: critical and high alarms.")
    amber: Line | None = Field(
        default=None, description="Line of the amber lamp: medium and low alarms, and what is not seen."
    )
    green: Line | None = Field(
        default=None, description="Line of the green lamp: no alarm, and everything is measured."
    )
    buzzer: Line | None = Field(
        default=None, description="Line of the buzzer: unacknowledged critical and high alarms."
    )
    acknowledge: Line | None = Field(
        default=None, description="Line of the acknowledge button, which connects it to ground."
    )
    bounce: Duration = Field(
        default=0.05, ge=0, le=1, description="How long the button must be steady to count as pressed."
    )
    on_exit: Literal["red", "amber", "off", "keep"] = Field(
        default="red", description="What it shows when the agent has ended: one lamp, nothing, or what it showed last."
    )

    @model_validator(mode="after")
    def _lines_fit(self) -> StackLightSettings:
        lines = [*self.lamps.values(), *([] if self.acknowledge is None else [self.acknowledge])]
        if not self.lamps:
            raise ValueError("needs a line for at least one of red, amber, green, buzzer")
        if len(set(lines)) < len(lines):
            raise ValueError("the same line is given twice")
        if self.on_exit in ("red", "amber") and self.on_exit not in self.lamps:
            raise ValueError(f"on_exit: {self.on_exit} needs a line for {self.on_exit}; or choose on_exit: off")
        return self

    @property
    def lamps(self) -> dict[str, int]:
        lines = {"red": self.red, "amber": self.amber, "green": self.green, "buzzer": self.buzzer}
        return {name: line for name, line in lines.items() if line is not None}


class RelaySettings(GpioSection):
    """One relay that follows the alarms of some severities, for a machine stop, a siren or another controller."""

    line: Line = Field(description="Line of the relay.")
    severities: list[Literal["critical", "high", "medium", "low"]] = Field(
        default=["critical", "high"],
        min_length=1,
        description="Alarms of these severities switch it, until they are normal.",
    )
    energised_when: Literal["normal", "alarm"] = Field(
        default="normal", description="`normal` is fail-safe: it also drops out when the agent or its power is gone."
    )
    on_exit: Literal["alarm", "normal", "keep"] = Field(
        default="alarm", description="The position it takes when the agent has ended."
    )


class StackLight(Lines):
    """Lamps, buzzer and button of one stack light."""

    Settings: type[Section] = StackLightSettings

    def open(self) -> None:
        self.claim(dict.fromkeys(self._settings.lamps.values(), False), self._settings.acknowledge)

    def show(self, lit: Mapping[str, bool]) -> None:
        self.drive({line: lit[lamp] for lamp, line in self._settings.lamps.items() if lamp in lit})

    def when_acknowledged(self, act: Callable[[], None]) -> None:
        self.watch(self._settings.acknowledge, self._settings.bounce, act)

    def safe(self) -> None:
        if self._settings.on_exit != "keep":
            self.drive({line: lamp == self._settings.on_exit for lamp, line in self._settings.lamps.items()})


class Relay(Lines):
    """One relay. It begins de-energised and moves when the alarms are known."""

    Settings: type[Section] = RelaySettings

    def open(self) -> None:
        self.claim({self._settings.line: False})

    def show(self, lit: Mapping[str, bool]) -> None:
        self._position(alarm=any(lit.get(severity, False) for severity in self._settings.severities))

    def when_acknowledged(self, act: Callable[[], None]) -> None:
        """A relay has no button."""

    def safe(self) -> None:
        if self._settings.on_exit != "keep":
            self._position(alarm=self._settings.on_exit == "alarm")

    def _position(self, *, alarm: bool) -> None:
        self.drive({self._settings.line: alarm is (self._settings.energised_when == "alarm")})


class SimulatedStackLight(StackLight):
    """A stack light on gpiozero's mock pins, chosen by ``kind: simulated`` and never in place of a missing one."""

    def _make_factory(self) -> Any:
        return self._factory or mock_header()

    @property
    def lit(self) -> dict[str, bool]:
        """Which lamps are on; none while it is closed."""
        inverted = self._settings.active_low
        return {
            lamp: bool(self._pins[line].state) is not inverted
            for lamp, line in self._settings.lamps.items()
            if line in self._pins
        }

    def press(self) -> None:
        """Press the acknowledge button and let go."""
        pin = self._pins[self._settings.acknowledge]
        pin.drive_low()
        pin.drive_high()
