"""What an eye process and its parent say to each other: one JSON object per packet, both ways.

The parent speaks once, when it starts the process: what to look at and how. The process then says:

``opening``   it tries to reach the camera, which may take long
``open``      pictures can come
``alive``     something was grabbed since it last said so; counts since then, pictures per second, memory
``verdict``   a :class:`~edge_agent.vocabulary.Verdict`
``evidence``  an :class:`~edge_agent.vocabulary.Evidence`; its file is complete. Pictures never go through here
``fault``     the camera gives nothing; it will try again by itself

The link's end is the order to stop, in both directions. The process handles hostile pictures, so the
parent believes nothing that does not fit.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from math import isfinite
from threading import Lock
from typing import Any, Final, TypeVar

from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError

from edge_agent.vocabulary import ANOMALY, DEFECT, GOOD, NORMAL, NOT_INSPECTED, UNKNOWN, Evidence, Verdict

LABELS: Final = frozenset({GOOD, DEFECT, ANOMALY, NORMAL, NOT_INSPECTED, UNKNOWN})
_LARGEST: Final = 64 * 1024


class LinkClosedError(ConnectionError):
    """The other side is gone."""


class NonsenseError(ValueError):
    """The other side said something that cannot be."""


@dataclass(frozen=True, slots=True)
class Alive:
    """What an eye tells about itself: counts since it last did, pictures per second, memory, remarks for a person."""

    counts: dict[str, NonNegativeInt]
    fps: FiniteFloat
    rss_bytes: NonNegativeInt
    remarks: list[str]


class Link:
    """One end; safe for several senders, one receiver."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = Lock()

    def send(self, say: str, **what: object) -> None:
        """Raises LinkClosedError; blocks while the other side is slow."""
        packet = json.dumps({"say": say, **what}, allow_nan=False).encode()
        if len(packet) > _LARGEST:
            raise ValueError(f"a message of {len(packet)} bytes")
        try:
            with self._lock:
                self._socket.sendall(packet)
        except OSError as error:
            raise LinkClosedError(str(error)) from error

    def receive(self, timeout_s: float | None) -> dict[str, Any] | None:
        """The next message, or None when none came in time; raises LinkClosedError and NonsenseError."""
        try:
            self._socket.settimeout(timeout_s)
            packet = self._socket.recv(_LARGEST)
        except TimeoutError:
            return None
        except OSError as error:
            raise LinkClosedError(str(error)) from error
        if not packet:
            raise LinkClosedError("closed")
        try:
            message = json.loads(packet)
        except (ValueError, RecursionError) as error:
            raise NonsenseError(str(error)) from error
        if not isinstance(message, dict) or not isinstance(message.get("say"), str):
            raise NonsenseError("not a message")
        return message

    def finish(self) -> None:
        """Nothing more will be sent; the other side may still speak. Raises LinkClosedError."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise LinkClosedError(str(error)) from error

    def close(self) -> None:
        self._socket.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; packets keep their borders."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


_VERDICT: Final = TypeAdapter(Verdict)
_EVIDENCE: Final = TypeAdapter(Evidence)
_ALIVE: Final = TypeAdapter(Alive)


def packed(noun: Verdict | Evidence | Alive) -> dict[str, object]:
    """As it travels."""
    return asdict(noun)


def verdict_from(fields: object, camera: str) -> Verdict:
    """A verdict of that camera; raises NonsenseError for anything else."""
    verdict = _fitting(_VERDICT, fields)
    numbers = (verdict.score, verdict.threshold, verdict.latency_ms)
    if verdict.subject != camera or verdict.label not in LABELS:
        raise NonsenseError(f"{verdict.label!r} of {verdict.subject!r} from the eye of {camera!r}")
    if not all(isfinite(number) for number in numbers if number is not None):
        raise NonsenseError("a number that is none")
    return verdict


def evidence_from(fields: object, camera: str, folder: str) -> Evidence:
    """Evidence of that camera whose file lies in ``folder``; raises NonsenseError for anything else."""
    evidence = _fitting(_EVIDENCE, fields)
    plain = evidence.id.replace("-", "").replace("_", "").isalnum()
    if evidence.camera != camera or not plain or evidence.path != f"{folder}/{evidence.id}.jpg":
        raise NonsenseError(f"evidence {evidence.path!r} from the eye of {camera!r}")
    return evidence


def alive_from(fields: object) -> Alive:
    """Raises NonsenseError for anything else."""
    return _fitting(_ALIVE, fields)


_Noun = TypeVar("_Noun")


def _fitting(kind: TypeAdapter[_Noun], fields: object) -> _Noun:
    try:
        return kind.validate_python(fields)
    except ValidationError as error:
        raise NonsenseError(str(error)) from error
