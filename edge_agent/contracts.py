"""What a stage may ask of what it drives. Drivers and models implement these; stages know only these.

A driver is one file that returns samples and raises only :class:`~edge_agent.errors.DeviceError`:
no thread, no sleeping loop, no retry, no logging, no MQTT. A constructor does no I/O; ``open`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from edge_agent.clock import Clock, Stamp
from edge_agent.settings import Section
from edge_agent.vocabulary import Judgement, Quantity, Sample


class Profile(Protocol):
    """What is known of a kind of device before any I/O: its quantities."""

    @property
    def name(self) -> str: ...

    @property
    def quantities(self) -> Mapping[str, Quantity]: ...


class Device(Protocol):
    """One meter or sensor on a bus. Called from the thread of its bus only."""

    @property
    def name(self) -> str: ...

    @property
    def quantities(self) -> Mapping[str, Quantity]: ...

    @property
    def groups(self) -> Mapping[str, float]:
        """Name of each register group and its period in seconds; most devices have just one."""
        ...

    def read(self, due: frozenset[str]) -> Sample:
        """Read the groups that are due.

        Raises DeviceError when the device gave nothing (its ``reason`` then stands for every
        quantity that was due) and WireError when the bus itself is gone.
        """
        ...

    def probe(self) -> None:
        """The cheapest question that tells whether the device is there; raises as ``read`` does."""
        ...


class Bus(Protocol):
    """A wire. Serial by nature: only its one thread calls it, so nothing in it is locked."""

    Settings: type[Section]
    DeviceSettings: type[Section]

    def __init__(self, name: str, settings: Any, clock: Clock) -> None: ...

    @classmethod
    def profile(cls, settings: Any, folder: Path) -> Profile:
        """The profile that a device's settings name; ``folder``: what its path is relative to.

        Raises ProfileError with the nearest known names. No I/O but reading the profile file.
        """
        ...

    def device(self, name: str, settings: Any, profile: Any) -> Device:
        """Bind a device to this bus. No I/O."""
        ...

    def open(self) -> None:
        """Open the port or connection; raises WireError. Harmless when already open."""
        ...

    def close(self) -> None:
        """Close it; harmless when closed."""
        ...


@dataclass(slots=True)
class Frame:
    """One picture as it came: ``encoded`` (JPEG or PNG, not yet looked at) or ``image``, never neither.

    ``image``: NumPy array, height × width × 3, uint8, BGR, not changed by anybody afterwards.
    ``name``: of the file that it came from, or nothing.
    """

    at: Stamp
    image: Any = None
    encoded: bytes | None = None
    name: str = ""


class Camera(Protocol):
    """Where pictures come from. Called from one thread of its own process only; importing it costs no NumPy."""

    Settings: type[Section]

    def __init__(self, name: str, settings: Any, clock: Clock, since_ns: int) -> None:
        """``since_ns``: when the agent began to look (CLOCK_BOOTTIME); a twin's script counts from it."""
        ...

    @property
    def streams(self) -> bool:
        """True: pictures come by themselves and only the newest counts. False: one comes when asked for, and counts."""
        ...

    def open(self) -> None:
        """Raises CameraError. Harmless when already open."""
        ...

    def grab(self) -> Frame | None:
        """Wait for the next picture; None: there is none now, and that is no fault.

        Raises PictureError when this picture is lost but the next may be good, and CameraError
        when the camera must be opened again.
        """
        ...

    def remarks(self) -> tuple[str, ...]:
        """What is not as configured although pictures come, for a person to read: a lost exposure lock."""
        ...

    def close(self) -> None:
        """Harmless when closed."""
        ...


@runtime_checkable
class Settling(Camera, Protocol):
    """A camera with an automatic that can be switched off, by settings of its own."""

    def settled(self) -> dict[str, Any]:
        """What the open camera's automatic has settled on, after a second of pictures: setting → its value.

        None: the camera does not have it, so it cannot be locked. With these settings it stays as it is now. Raises
        as ``grab`` does.
        """
        ...


class Judge(Protocol):
    """Decides about pictures: a named rule or a model. Called from one thread of the eye process only."""

    Settings: type[Section]

    def __init__(self, settings: Any) -> None: ...

    @property
    def decided_by(self) -> str:
        """Who decides, with its version: ``rule/dark-spot@1``, ``pitting@3/int8-onnx``."""
        ...

    @property
    def model_sha256(self) -> str | None: ...

    def open(self) -> None:
        """Load what it needs."""
        ...

    def judge(self, image: Any) -> Judgement:
        """Decide about the pixels (as in ``Frame.image``). Any exception means that it could not."""
        ...


class Outputs(Protocol):
    """A stack light, buzzer or relay. ``show`` returns once the pins are set."""

    Settings: type[Section]

    def __init__(self, name: str, settings: Any) -> None: ...

    @property
    def name(self) -> str: ...

    def open(self) -> None:
        """Claim the lines; raises OutputError that names the owner of a busy line."""
        ...

    def show(self, lit: Mapping[str, bool]) -> None:
        """Set every lamp at once; raises OutputError. Whoever calls blinks.

        ``lit``: a lamp (``red``, ``amber``, ``green``, ``buzzer``) or a severity that an alarm
        has → whether it is on now. Names that this output has no line for are passed over.
        """
        ...

    def when_acknowledged(self, act: Callable[[], None]) -> None:
        """Call ``act`` (from any thread) when the acknowledge button is pressed."""
        ...

    def safe(self) -> None:
        """Go to the configured safe state (``on_exit``); raises OutputError. Harmless when closed."""
        ...

    def close(self) -> None:
        """Leave the lines in their safe state and give them up; never raises."""
        ...
