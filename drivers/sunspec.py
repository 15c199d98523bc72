"""Finding a SunSpec model: the marker "SunS", then a chain of models, each with its id and length.

Source: SunSpec Device Information Model Specification; models in github.com/sunspec/models.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from typing import Final

from edge_agent.errors import DeviceError, WireError
from edge_agent.vocabulary import EXCEPTION, NOTHING_THERE

STARTS: Final = (40000, 50000, 0)
"""Where the marker may stand, 0-based."""
_MARKER: Final = b"SunS"
_END: Final = 0xFFFF
_MOST_MODELS: Final = 64
_HEAD: Final = struct.Struct(">HH")


def find_model(read: Callable[[int, int], bytes], wanted: Collection[int]) -> int:
    """The address of the id register of the first model wanted.

    ``read``: address and count → bytes of holding registers, raising DeviceError. Raises DeviceError.
    """
    start = _find_marker(read)
    address, present = start + 2, []
    for _ in range(_MOST_MODELS):
        if address + 2 > 0x10000:
            break
        model, length = _HEAD.unpack(read(address, 2))
        if model in wanted:
            return address
        if model == _END:
            break
        present.append(model)
        address += 2 + length
    hint = f"it has the models {present}; choose a profile of one of them"
    raise DeviceError(NOTHING_THERE, f"no SunSpec model {' or '.join(map(str, sorted(wanted)))}", hint=hint)


def _find_marker(read: Callable[[int, int], bytes]) -> int:
    for start in STARTS:
        try:
            if read(start, 2) == _MARKER:
                return start
        except WireError:
            raise
        except DeviceError as error:
            if not error.reason.startswith(EXCEPTION):
                raise  # silent, not refusing: it would be so elsewhere too
    raise DeviceError(NOTHING_THERE, "no SunSpec marker at 40000, 50000 or 0", hint="is SunSpec switched on there?")
