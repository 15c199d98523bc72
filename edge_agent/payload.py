"""The dialect ``json``: what goes over MQTT, and how the inside of a row is written.

A row is kept as the *inside* of a JSON object. The envelope (stream, seq, time, clock, late) is put
around it when it leaves, because time may be corrected and lateness is only known then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from math import isfinite

from edge_agent.clock import Stamp, iso
from edge_agent.outbox import ALARM, EVIDENCE, TELEMETRY, VERDICT, Row, Stored
from edge_agent.vocabulary import NOT_A_NUMBER, QUANTITIES, AlarmChange, Evidence, Quantity, Reading, Verdict

# ASCII only: a character is a byte when the spool counts, and no odd file name in a message can be unencodable.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

# Decimals that are worth sending of what the vocabulary knows: beyond any meter's resolution, short of float32's noise.
_DECIMALS = {"": 5, "A": 4, "Hz": 4}
_DEFAULT_DECIMALS = 3


def number_format(quantity: Quantity) -> str:
    """How a value of this quantity is written: nothing that its source had is lost."""
    known = QUANTITIES.get(quantity.name)
    if known is not None and known.unit == quantity.unit:
        return f"%.{_DECIMALS.get(quantity.unit, _DEFAULT_DECIMALS)}f"
    return f"%.{quantity.digits}g" if quantity.digits else "%r"


class TelemetryWriter:
    """Readings as rows. ``formats``: device → quantity → how it is written; ``%r`` if not named.

    A device says the same quantities again and again, so its JSON is a form that is only filled in.
    """

    def __init__(self, formats: Mapping[str, Mapping[str, str]]) -> None:
        self._formats = formats
        self._forms: dict[str, tuple[tuple[str, ...], object, str]] = {}

    def row(self, reading: Reading) -> Row:
        values = reading.values
        names, formats = tuple(values), self._formats.get(reading.device, {})
        form = self._forms.get(reading.device)
        if form is None or form[0] != names or form[1] is not formats:
            form = self._forms[reading.device] = (names, formats, _form(names, formats))
        numbers = tuple(values.values())
        absent = reading.absent
        if isfinite(sum(numbers)):
            body = form[2] % numbers
        else:  # NaN and infinity are no JSON, and no values either
            absent = {**absent, **{name: NOT_A_NUMBER for name, value in values.items() if not isfinite(value)}}
            body = '"values":' + _encode({name: value for name, value in values.items() if isfinite(value)})
        if absent:
            body += ',"absent":' + _encode(absent)
        if reading.events:
            body += ',"events":' + _encode(reading.events)
        return Row(TELEMETRY, "telemetry/" + reading.device, reading.at, body)


def _form(names: tuple[str, ...], formats: Mapping[str, str]) -> str:
    """``"values":{"active_power":%.3f,…}``: Python writes a number just as JSON has it."""
    fields = (_encode(name).replace("%", "%%") + ":" + formats.get(name, "%r") for name in names)
    return '"values":{' + ",".join(fields) + "}"


def verdict_row(verdict: Verdict) -> Row:
    fields = {
        "subject": verdict.subject,
        "label": verdict.label,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "decided_by": verdict.decided_by,
        "model_sha256": verdict.model_sha256,
        "latency_ms": verdict.latency_ms,
        "evidence": verdict.evidence,
        "reason": verdict.reason,
        **verdict.details,
    }
    return Row(VERDICT, "verdict/" + verdict.subject, verdict.at, _inside(fields))


def alarm_row(change: AlarmChange) -> Row:
    fields = {
        "alarm": change.alarm,
        "state": change.state,
        "severity": change.severity,
        "since": iso(change.since.wall_ms),
        "cause": change.cause,
        **change.details,
    }
    return Row(ALARM, "alarm/" + change.alarm, change.at, _inside(fields), retain=True)


def evidence_row(evidence: Evidence) -> Row:
    """The row of a picture file: it names the file, the bytes are read when it leaves."""
    fields = {
        "id": evidence.id,
        "role": evidence.role,
        "path": evidence.path,
        "sha256": evidence.sha256,
        "size_bytes": evidence.size_bytes,
    }
    return Row(EVIDENCE, "evidence/" + evidence.camera, evidence.at, _inside(fields))


def _inside(fields: Mapping[str, object]) -> str:
    return _encode({name: value for name, value in fields.items() if _is_something(value)})[1:-1]


def _is_something(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not isfinite(value))


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return iso(seconds * 1000)[:-5]


def fast_iso(wall_ms: int) -> str:
    """As :func:`edge_agent.clock.iso`, for many stamps within few seconds."""
    seconds, ms = divmod(wall_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


def envelope(row: Stored, wall_ms: int, *, synced: bool, late: bool) -> bytes:
    """The message of a row: envelope first, then its body."""
    clock = "synced" if synced else "unsynced"
    return (
        f'{{"stream":"{row.stream}","seq":{row.seq},"at":"{fast_iso(wall_ms)}",'
        f'"clock":"{clock}","late":{"true" if late else "false"},{row.body}}}'
    ).encode()


def properties(row: Stored, wall_ms: int, evidence_id: str) -> list[tuple[str, str]]:
    """MQTT 5 user properties of a picture, whose payload is the JPEG itself."""
    return [("stream", row.stream), ("seq", str(row.seq)), ("at", fast_iso(wall_ms)), ("id", evidence_id)]


def restamp(row: Stored, offset_ms: int | None) -> tuple[int, bool]:
    """(Unix ms, synced): the row's own stamp, or its true time once its boot's clock offset is known."""
    if row.synced or offset_ms is None:
        return row.wall_ms, row.synced
    return row.mono_ns // 1_000_000 + offset_ms, True


def message(fields: Mapping[str, object]) -> bytes:
    """A whole JSON object, for birth, will, replies and the like."""
    return _encode(fields).encode()


def stamp_fields(at: Stamp) -> dict[str, object]:
    return {"at": iso(at.wall_ms), "clock": "synced" if at.synced else "unsynced"}


def json_object(payload: bytes) -> dict[str, object]:
    """A JSON object of at most 64 KiB; raises ValueError."""
    if len(payload) > 65536:
        raise ValueError("too large")
    try:
        found = json.loads(payload)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found
