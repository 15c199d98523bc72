"""What is on its way to the broker in one session, and how much of it may be."""

from __future__ import annotations

import json
import threading
from collections import deque
from pathlib import Path
from typing import Final, Protocol

from pydantic import Field, field_validator

from edge_agent import mqtt
from edge_agent.clock import NS, Clock
from edge_agent.health import Health
from edge_agent.mqtt import Ack, Broker, Credentials, MqttError, Session
from edge_agent.outbox import EVIDENCE, Stored
from edge_agent.payload import envelope, properties, restamp
from edge_agent.settings import Duration

BEFORE_ALL: Final = -(1 << 62)
_CHUNK: Final = 200
_RETRY_CODES: Final = {0x80, 0x83, 0x97}  # unspecified, implementation specific, quota exceeded


class MqttSettings(Credentials):
    """The broker, and how to speak to it."""

    brokers: list[str] = Field(
        min_length=1, description="Brokers, tried in order: `mqtts://host:8883`, or `mqtt://` for plain."
    )
    topic_prefix: str = Field(default="edge", pattern=r"^[A-Za-z0-9_-]+$", description="First level of every topic.")
    dialects: list[str] = Field(default=["json"], description="What is spoken; `json` is the durable channel.")
    client_id: str | None = Field(default=None, description="MQTT client id; default `edge-agent-SITE-LINE`.")
    window: int = Field(default=100, ge=1, le=65535, description="Messages in flight; the broker may allow fewer.")
    drain_rate: float = Field(default=500.0, gt=0, description="Backlog messages per second after an outage.")
    puback_timeout: Duration = Field(
        default=20.0, ge=1, description="A broker that confirms nothing for so long is left."
    )
    receipt_topic: str | None = Field(
        default=None, description="Where the collector says `{stream, upto}`; rows are kept until then."
    )

    @field_validator("brokers")
    @classmethod
    def _are_brokers(cls, urls: list[str]) -> list[str]:
        for url in urls:
            Broker.parse(url)
        return urls

    @field_validator("dialects")
    @classmethod
    def _are_dialects(cls, dialects: list[str]) -> list[str]:
        for dialect in dialects:
            if dialect != "json":
                raise ValueError(f"{dialect!r} is not a dialect of this version; it speaks json")
        return dialects


class Source(Protocol):
    """What publish needs of record."""

    @property
    def generation(self) -> int: ...

    @property
    def next_seq(self) -> int: ...

    def reader(self) -> SpoolReader: ...

    def settle(self, ids: list[int], generation: int) -> None: ...

    def park(self, row_id: int, reason: str, generation: int) -> None: ...


class SpoolReader(Protocol):
    @property
    def generation(self) -> int: ...

    def rows(self, after: int, before: int, count: int, *, alarms: bool) -> list[Stored]: ...

    def offset_ms(self, boot: int) -> int | None: ...

    def close(self) -> None: ...


class Flight:
    """What is on its way to the broker in one session."""

    def __init__(
        self,
        session: Session,
        reader: SpoolReader,
        source: Source,
        settings: MqttSettings,
        root: str,
        clock: Clock,
        health: Health,
    ) -> None:
        self.generation = reader.generation
        self._session = session
        self._reader = reader
        self._source = source
        self._root = root
        self._clock = clock
        self._health = health
        self._window = min(settings.window, session.receive_maximum)
        self._timeout_ns = int(settings.puback_timeout * NS)
        self._rate = settings.drain_rate
        self._tokens = 0.0
        self._tokens_ns = clock.mono_ns()
        self._receipts = settings.receipt_topic is not None
        self._sent: dict[int, tuple[Stored, int]] = {}  # mid → row, when
        self._settled: list[int] = []
        self._held: dict[tuple[str, int], int] = {}  # (stream, seq) → id: PUBACKed, waiting for the receipt
        self._alarms: deque[Stored] = deque()
        self._backlog: deque[Stored] = deque()
        self._retries: dict[int, int] = {}
        self._paused_until_ns = 0
        self._offsets: dict[int, int | None] = {}

    @property
    def busy(self) -> bool:
        return bool(self._sent or self._alarms)

    def load_alarms(self, floor: int) -> None:
        after = BEFORE_ALL
        while rows := self._reader.rows(after, floor, _CHUNK, alarms=True):
            self._alarms.extend(rows)
            after = rows[-1].id

    def fill(self, live: deque[Stored], ranges: deque[tuple[int, int]], lock: threading.Lock) -> float:
        """Send what fits the window: alarms of the backlog, the present, then backlog. Seconds until more may go."""
        if self._clock.mono_ns() < self._paused_until_ns:
            return 0.2
        while self._alarms and len(self._sent) < self._window:
            self._send(self._alarms.popleft(), late=True)
        while live and not self._alarms and len(self._sent) < self._window:
            self._send(live.popleft(), late=False)
        now_ns = self._clock.mono_ns()
        self._tokens = min(self._rate / 4 + 1, self._tokens + (now_ns - self._tokens_ns) / NS * self._rate)
        self._tokens_ns = now_ns
        # Half of the window stays free for the present.
        while self._tokens >= 1 and len(self._sent) < max(1, self._window // 2) and self._next_backlog(ranges, lock):
            self._send(self._backlog.popleft(), late=True)
            self._tokens -= 1
        return max(0.005, (1 - self._tokens) / self._rate) if self._backlog or ranges else 1.0

    def _next_backlog(self, ranges: deque[tuple[int, int]], lock: threading.Lock) -> bool:
        while not self._backlog:
            with lock:
                if not ranges:
                    return False
                after, before = ranges[0]
            rows = self._reader.rows(after, before, _CHUNK, alarms=False)
            self._backlog.extend(rows)
            with lock:
                if rows:
                    ranges[0] = (rows[-1].id, before)
                else:
                    ranges.popleft()
        return True

    def _send(self, row: Stored, *, late: bool) -> None:
        if row.boot not in self._offsets or (self._offsets[row.boot] is None and not row.synced):
            self._offsets[row.boot] = self._reader.offset_ms(row.boot)
        wall_ms, synced = restamp(row, self._offsets[row.boot])
        topic = f"{self._root}/{row.topic}"
        user: list[tuple[str, str]] = []
        if row.kind == EVIDENCE:
            found = _picture(row)
            if found is None:
                self._source.park(row.id, "picture file is gone", self.generation)
                return
            payload, picture_id = found
            user = properties(row, wall_ms, picture_id)
            if self._session.legacy:  # no properties there: the topic carries them
                topic = f"{topic}/{row.stream}/{row.seq}/{picture_id}"
        else:
            payload = envelope(row, wall_ms, synced=synced, late=late)
        if len(payload) + len(topic) + 64 > self._session.maximum_packet_bytes:
            self._source.park(row.id, "larger than the broker takes", self.generation)
            return
        mid = self._session.publish(topic, payload, retain=row.retain, user=user)
        self._sent[mid] = (row, self._clock.mono_ns())

    def acked(self, ack: Ack) -> None:
        found = self._sent.pop(ack.mid, None)
        if found is None:
            return  # our own state message, or an id that we never sent
        row, _ = found
        if ack.code < 0x80:
            if self._receipts:
                self._held[row.stream, row.seq] = row.id
            else:
                self._settled.append(row.id)
            return
        tries = self._retries.get(row.id, 0) + 1
        self._health.count("publish.refused")
        if ack.code in _RETRY_CODES and (ack.code == 0x97 or tries < 3):
            self._retries[row.id] = tries
            self._paused_until_ns = self._clock.mono_ns() + min(30, 2**tries) * NS
            self._backlog.appendleft(row)
        else:
            self._retries.pop(row.id, None)
            self._source.park(row.id, f"reason code 0x{ack.code:02x}", self.generation)

    def receipt(self, payload: bytes) -> None:
        """``{"stream": …, "upto": …}``: the collector has everything so far."""
        try:
            receipt = json_object(payload)
            stream, upto = str(receipt["stream"]), int(str(receipt["upto"]))
        except (ValueError, KeyError):
            self._health.count("publish.bad_receipt")
            return
        done = [key for key in self._held if key[0] == stream and key[1] <= upto]
        self._settled.extend(self._held.pop(key) for key in done)

    def settle(self) -> None:
        if self._settled:
            self._source.settle(self._settled, self.generation)
            self._settled = []

    def check(self) -> None:
        """A broker that took something long ago and confirms nothing is left; raises MqttError."""
        if self._sent:
            _, sent_ns = next(iter(self._sent.values()))
            if self._clock.mono_ns() - sent_ns > self._timeout_ns:
                raise MqttError(mqtt.NETWORK, f"{self._session.broker.url}: no PUBACK for {self._timeout_ns // NS} s")


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


def _picture(row: Stored) -> tuple[bytes, str] | None:
    fields = json_object(b"{" + row.body.encode() + b"}")
    try:
        return Path(str(fields["path"])).read_bytes(), str(fields["id"])
    except (OSError, KeyError):
        return None
