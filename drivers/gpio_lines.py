"""GPIO lines of one chip, claimed together: the only door to gpiozero and lgpio.

gpiozero's device classes are left out on purpose: they close their pins when they are collected, which makes
them inputs and would undo a safe state, and they take a thread for every lamp that blinks. Its pins do neither.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from gpiozero import GPIOPinInUse, GPIOZeroError
from gpiozero.pins.mock import MockFactory

from edge_agent.errors import OutputError

DEV: Final = Path("/dev")
HEADERS: Final = ("pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1")  # labels of the chips with the 40-pin header

LGPIO: Final = (
    "pip install lgpio; on Python 3.13 install the system's python3-lgpio "
    "and make the virtual environment with --system-site-packages"
)
GROUP: Final = "add the user to the group gpio: sudo usermod -aG gpio USER"


class Lines:
    """Some lines of one chip. ``settings``: of a :class:`drivers.gpio.GpioSection`; raises only OutputError."""

    def __init__(self, name: str, settings: Any) -> None:
        self.name = name
        self._settings = settings
        self._factory: Any = None
        self._pins: dict[int, Any] = {}
        self._act: Callable[[], None] | None = None
        self._level = False

    def __repr__(self) -> str:
        return f"output {self.name!r}"

    def claim(self, levels: Mapping[int, bool], button: int | None = None, *, pull: str = "up") -> None:
        """Claim lines for output with their first level, and one for a button or sensor; all or none, once."""
        if self._pins:
            return
        with _ours("GPIO"):
            self._factory = self._make_factory()
        pins: dict[int, Any] = {}
        try:
            for line in (*levels, *([] if button is None else [button])):
                with _ours(f"GPIO {line}", partial(_owner, self._factory, line)):
                    self._factory.reserve_pins(self, line)
                    pins[line] = self._factory.pin(line)
                    if line in levels:
                        pins[line].output_with_state(levels[line] is not self._settings.active_low)
                    else:
                        pins[line].input_with_pull(pull)
        except OutputError:
            self._factory.release_all(self)
            raise
        self._pins = pins

    def drive(self, levels: Mapping[int, bool]) -> None:
        """Set lines on or off; harmless when not claimed."""
        for line, on in levels.items():
            if line in self._pins:
                with _ours(f"GPIO {line}"):
                    self._pins[line].state = on is not self._settings.active_low

    def watch(self, line: int | None, steady_s: float, act: Callable[[], None], *, level: bool = False) -> None:
        """Call ``act`` when a line goes to ground (or to ``level``) and stays there for so long."""
        pin = self._pins.get(-1 if line is None else line)
        self._act, self._level = act, level
        if pin is not None:
            with _ours(f"GPIO {line}"):
                pin.edges = "both"  # without the other edge lgpio would take a bounce for a press
                pin.bounce = steady_s or None
                pin.when_changed = self._changed  # only weakly held: it lives as long as this object

    def safe(self) -> None:
        """Go to the safe state; every kind of output has its own."""
        raise NotImplementedError

    def close(self) -> None:
        """Go to the safe state and give the lines up to other outputs. They are not closed: they keep their levels."""
        with suppress(OutputError):
            self.safe()
        for pin in self._pins.values():
            if pin.when_changed is not None:
                with suppress(OutputError), _ours("button"):
                    pin.when_changed = None
        if self._pins:
            self._factory.release_all(self)
        self._pins = {}

    def _make_factory(self) -> Any:
        return _header(self._settings.chip)

    def _changed(self, _ticks: object, level: int) -> None:
        if bool(level) is self._level and self._act is not None:
            self._act()

    def _conflicts_with(self, other: object) -> bool:
        """Asked by gpiozero when two outputs want one line."""
        return other is not self


def mock_header() -> Any:
    """Pins that only remember what they were told, those of a Pi 4B."""
    return MockFactory(revision="c03111")


@cache
def _header(chip: int | None) -> Any:
    """The pin factory of a chip, one for all outputs: two could not claim lines of one chip beside each other."""
    number = _find() if chip is None else chip
    path = DEV / f"gpiochip{number}"
    if not path.exists():
        raise OutputError(f"there is no {path}", hint="leave `chip` out to have the one with the 40-pin header found")
    if not os.access(path, os.R_OK | os.W_OK):
        raise OutputError(f"no permission for {path}", hint=GROUP)
    _lgpio()
    from gpiozero.pins.lgpio import LGPIOFactory  # noqa: PLC0415 - needs lgpio, which is there only on ARM

    factory = LGPIOFactory(chip=number)
    factory.pins = {}  # gpiozero keeps one table of pins for all chips of a process
    return factory


def _find() -> int:
    """The chip with the header, by its label: its number differs between boards and kernels."""
    paths = [path for path in sorted(DEV.glob("gpiochip*")) if path.name[8:].isdigit()]
    if not paths:
        raise OutputError(
            "this machine has no GPIO (no /dev/gpiochip*)", hint="use `kind: simulated` where there is no hardware"
        )
    lgpio = _lgpio()
    labels = {}
    for path in paths:
        number = int(path.name[8:])
        if not os.access(path, os.R_OK | os.W_OK):
            raise OutputError(f"no permission for {path}", hint=GROUP)
        handle = lgpio.gpiochip_open(number)
        labels[path.name] = _text(lgpio.gpio_get_chip_info(handle)[3])
        lgpio.gpiochip_close(handle)
        if labels[path.name] in HEADERS:
            return number
    raise OutputError(f"no GPIO chip with a 40-pin header among {labels}", hint="name the right one with `chip`")


@cache
def _lgpio() -> Any:
    """Import lgpio. It makes a named pipe in the working directory, and changes to ``LG_WD``, as it is imported."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        os.environ["LG_WD"] = folder
        try:
            return import_module("lgpio")
        except ImportError as error:
            raise OutputError("the library lgpio is missing", hint=LGPIO) from error
        finally:
            os.chdir(here)
            del os.environ["LG_WD"]


@contextmanager
def _ours(what: str, owner: Callable[[], str] = lambda: "somebody else") -> Iterator[None]:
    """Every way in which the libraries fail, as OutputError."""
    try:
        yield
    except OutputError:
        raise
    except GPIOPinInUse as error:
        raise OutputError(str(error), hint="give every output lines of its own") from error
    except _failures() as error:
        reason = str(error).strip("'")
        if "busy" not in reason.lower():
            raise OutputError(f"{what}: {reason}") from error
        hint = "stop that, or take another line; gpioinfo lists them"
        raise OutputError(f"{what} is in use by {owner()}", hint=hint) from error


def _failures() -> tuple[type[Exception], ...]:
    lgpio = sys.modules.get("lgpio")
    return (GPIOZeroError, OSError, *([lgpio.error] if lgpio else []))


def _owner(factory: Any, line: int) -> str:
    """Who holds a line, as it told the kernel."""
    lgpio = sys.modules["lgpio"]
    try:
        handle = lgpio.gpiochip_open(factory.chip)
        owner = _text(lgpio.gpio_get_line_info(handle, line)[4])
        lgpio.gpiochip_close(handle)
    except lgpio.error:
        owner = ""
    return repr(owner) if owner else "somebody else"


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
