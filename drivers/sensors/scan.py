"""What is on a bus, told by what it says and not by where it sits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from drivers.sensors.part import Part, Wire
from edge_agent.catalogue import SENSORS, load
from edge_agent.errors import DeviceError, WireError
from edge_agent.vocabulary import BUSY


class Found(NamedTuple):
    """``profile``: what to write into the config, or None when it is nothing that we know."""

    address: int
    profile: str | None
    evidence: str


def scan(wire: Wire, progress: Callable[[int, int], None] | None = None) -> list[Found]:
    """Ask every known part at all its addresses, then see who else answers; raises WireError.

    ``progress`` hears how many questions are done, and of how many.

    The order is that of the catalogue: all SHT3x are asked before any SHT4x, because an SHT4x that is
    asked for both in turns stops answering.
    """
    found: dict[int, Found] = {}
    questions = list(_questions())
    for done, (profile, part, address) in enumerate(questions):
        if progress is not None:
            progress(done, len(questions))
        if address in found:
            continue
        evidence, is_owned = _identify(part, wire, address)
        if evidence is not None:
            found[address] = Found(address, None if is_owned else profile, evidence)
    for address in range(0x08, 0x78):
        if address not in found and _answers(wire, address):
            found[address] = Found(address, None, "answers, but is no sensor that we know")
    return [found[address] for address in sorted(found)]


def _questions() -> Iterator[tuple[str, Part, int]]:
    seen = set()
    for profile, where in SENSORS.items():
        if where not in seen:
            seen.add(where)
            part: Part = load(SENSORS, profile)
            yield from ((profile, part, address) for address in part.addresses)


def _identify(part: Part, wire: Wire, address: int) -> tuple[str | None, bool]:
    try:
        return part.identify(wire, address), False
    except WireError:
        raise
    except DeviceError as error:
        is_owned = error.reason == BUSY
        return ("a kernel driver owns it: use a bus of kind kernel-sensor" if is_owned else None), is_owned


def _answers(wire: Wire, address: int) -> bool:
    try:
        wire.read(address, 1)
    except WireError:
        raise
    except DeviceError:
        return False
    return True
