"""What a process that judges and its parent say to each other: one JSON object per packet, both ways.

The parent says, when it starts the process, what to look at and how; later, what there is to judge (``rows``, to
the judge of the line), whom to try beside the one who decides (``candidate``), and what the process before it had
learnt (``recall``). The process says:

``opening``   it tries to reach the camera, or loads a model, which may take long
``open``      pictures or rows can come
``alive``     something was grabbed since it last said so; counts since then, pictures per second, memory
``verdict``   a :class:`~edge_agent.vocabulary.Verdict`
``evidence``  an :class:`~edge_agent.vocabulary.Evidence`; its file is complete. Pictures never go through here
``fault``     the camera gives nothing; it will try again by itself
``part``      a part was seen: a verdict about it follows, or the process ends
``sensor``    whether what sees parts works, and why not
``trial``     a :class:`Trial`: what became of a candidate
``memory``    what the judge of the line learnt, as a text that only the next such process reads

The link's end is the order to stop, in both directions. The process handles hostile pictures and models, so
the parent believes nothing that does not fit.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from threading import Lock
from typing import Any, Final, TypeVar

from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError

from edge_agent.clock import Stamp
from edge_agent.evidence_index import UNCERTAIN
from edge_agent.vocabulary import ANOMALY, DEFECT, GOOD, NORMAL, NOT_INSPECTED, UNKNOWN, Evidence, Verdict

LABELS: Final = frozenset({GOOD, DEFECT, ANOMALY, NORMAL, NOT_INSPECTED, UNKNOWN})
_LARGEST: Final = 64 * 1024


class LinkClosedError(ConnectionError):
    """The other side is gone."""


class NonsenseError(ValueError):
    """The other side said something that cannot be."""


@dataclass(frozen=True, slots=True)
class Alive:
    """What a process tells about itself: counts since it last did, pictures per second, memory, remarks for a person.

    ``fallbacks``: model → share of its last decisions that it did not make itself.
    """

    counts: dict[str, NonNegativeInt]
    fps: FiniteFloat
    rss_bytes: NonNegativeInt
    remarks: list[str]
    fallbacks: dict[str, FiniteFloat] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """How a candidate did beside the one who decides. ``who``: its number in the mark.

    ``same``: of so many ``judgements`` of both, so many had the same label. Latencies: 95 % are shorter.
    """

    model: str
    who: NonNegativeInt
    good: bool
    why: str
    judgements: NonNegativeInt = 0
    same: NonNegativeInt = 0
    old_ms: FiniteFloat = 0.0
    new_ms: FiniteFloat = 0.0


class Link:
    """One end; safe for several senders, one receiver."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = Lock()

    def send(self, say: str, **what: object) -> None:
        """Raises LinkClosedError; blocks while the other side is slow."""
        try:
            with self._lock:
                self._socket.sendall(_packet(say, what))
        except OSError as error:
            raise LinkClosedError(str(error)) from error

    def offer(self, say: str, **what: object) -> bool:
        """Send it if the other side has room for it now, and never wait. Raises LinkClosedError."""
        try:
            self._socket.send(_packet(say, what), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            raise LinkClosedError(str(error)) from error
        return True

    def receive(self, timeout_s: float | None) -> dict[str, Any] | None:
        """The next message, or None when none came in time; raises LinkClosedError and NonsenseError."""
        try:
            self._socket.settimeout(timeout_s)
            packet = self._socket.recv(_LARGEST)
        except (TimeoutError, BlockingIOError):
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


def _packet(say: str, what: Mapping[str, object]) -> bytes:
    packet = json.dumps({"say": say, **what}, allow_nan=False).encode()
    if len(packet) > _LARGEST:
        raise ValueError(f"a message of {len(packet)} bytes")
    return packet


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; packets keep their borders."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


_VERDICT: Final = TypeAdapter(Verdict)
_EVIDENCE: Final = TypeAdapter(Evidence)
_ALIVE: Final = TypeAdapter(Alive)
_TRIAL: Final = TypeAdapter(Trial)
_STAMP: Final = TypeAdapter(Stamp)


def packed(noun: Verdict | Evidence | Alive | Trial) -> dict[str, object]:
    """As it travels."""
    return asdict(noun)


def verdict_from(fields: object, *subjects: str) -> Verdict:
    """A verdict about that camera or one of those models; raises NonsenseError for anything else."""
    verdict = _fitting(_VERDICT, fields)
    numbers = (verdict.score, verdict.threshold, verdict.latency_ms)
    if verdict.subject not in subjects or verdict.label not in LABELS:
        raise NonsenseError(f"{verdict.label!r} of {verdict.subject!r} from the judge of {', '.join(subjects)}")
    if not all(isfinite(number) for number in numbers if number is not None):
        raise NonsenseError("a number that is none")
    return verdict


def evidence_from(fields: object, camera: str, folder: str) -> Evidence:
    """Evidence of that camera whose file lies in ``folder``; raises NonsenseError for anything else."""
    evidence = _fitting(_EVIDENCE, fields)
    plain = evidence.id.replace("-", "").replace("_", "").isalnum()
    place = f"{folder}/{UNCERTAIN}" if evidence.role == UNCERTAIN else folder
    if evidence.camera != camera or not plain or evidence.path != f"{place}/{evidence.id}.jpg":
        raise NonsenseError(f"evidence {evidence.path!r} from the eye of {camera!r}")
    return evidence


def part_from(fields: object) -> Stamp:
    """When a part was seen; raises NonsenseError for anything else."""
    return _fitting(_STAMP, fields)


def alive_from(fields: object) -> Alive:
    """Raises NonsenseError for anything else."""
    return _fitting(_ALIVE, fields)


def trial_from(fields: object) -> Trial:
    """Raises NonsenseError for anything else."""
    return _fitting(_TRIAL, fields)


_Noun = TypeVar("_Noun")


def _fitting(kind: TypeAdapter[_Noun], fields: object) -> _Noun:
    try:
        return kind.validate_python(fields)
    except ValidationError as error:
        raise NonsenseError(str(error)) from error
