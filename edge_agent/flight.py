"""What is on its way to the broker in one session, and how much of it may be."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from edge_agent.broker import MqttError, MqttSettings, Why
from edge_agent.clock import NS, Clock
from edge_agent.errors import SpoolDamageError, SpoolError
from edge_agent.health import Health
from edge_agent.lane import Lane, SpoolReader, Unread
from edge_agent.mqtt import Ack, Session
from edge_agent.outbox import ALARM, EVIDENCE, GAP, Stored
from edge_agent.payload import envelope, json_object, properties, restamp
from edge_agent.receipts import Receipts

_TRIES: Final = 3
_QUOTA_EXCEEDED: Final = 0x97
_RETRY_CODES: Final = {0x80, 0x83, _QUOTA_EXCEEDED}  # unspecified, implementation specific
_FORGOTTEN_AFTER: Final = 5  # PUBACK timeouts: others were confirmed meanwhile, this one never


class Source(Protocol):
    """What publish needs of record."""

    @property
    def generation(self) -> int: ...

    @property
    def next_id(self) -> int: ...

    def reader(self) -> SpoolReader: ...

    def settle(self, ids: list[int], generation: int) -> None: ...

    def park(self, row_id: int, reason: str, generation: int) -> None: ...

    def suspect(self, generation: int) -> None: ...


class Flight:
    """What is on its way to the broker in one session. While the disk cannot be read, the present goes on.

    Two things outlive the session. ``newest``: topic → id of the newest retained row that was sent there, so
    that an older state that comes back from the backlog never replaces a newer one at the broker; and ``unread``.
    """

    def __init__(
        self,
        session: Session,
        reader: SpoolReader,
        source: Source,
        settings: MqttSettings,
        root: str,
        clock: Clock,
        health: Health,
        newest: dict[str, int],
        unread: Unread,
    ) -> None:
        self.generation = reader.generation
        self.backlog = Lane(reader, alarms=False)
        self.alarms = Lane(reader, alarms=True)
        self._session = session
        self._reader = reader
        self._source = source
        self._root = root
        self._clock = clock
        self._health = health
        self._newest = newest
        self._unread = unread
        self._window = min(settings.window, session.receive_maximum)
        self._half = max(1, self._window // 2)  # the other half stays free for the present
        self._timeout_ns = int(settings.puback_timeout * NS)
        self._rate = settings.drain_rate
        self._tokens = 0.0
        self._tokens_ns = self._confirmed_ns = clock.mono_ns()
        self._receipts = Receipts() if settings.receipt_topic else None
        self._sent: dict[int, tuple[Stored, int]] = {}  # mid → row, when
        self._settled: list[int] = []
        self._tries: dict[int, int] = {}
        self._paused_until_ns = 0
        self._offsets: dict[int, tuple[int | None, int]] = {}  # boot → offset, when it was asked for

    @property
    def busy(self) -> bool:
        return bool(self._sent)

    def fill(self, live: deque[Stored], *, draining: bool = True) -> float:
        """Send what fits the window: alarms of the backlog, the present, then backlog. Seconds until more may go.

        ``draining`` false: the backlog stays where it is, because the end is near.
        """
        now_ns = self._clock.mono_ns()
        if now_ns < self._paused_until_ns:
            return (self._paused_until_ns - now_ns) / NS
        while self.alarms and self._has_room(self._half) and (row := self._next(self.alarms)):
            self._send(row, late=True)
        while live and self._has_room(self._window):
            row = live.popleft()
            if row.kind == ALARM and self.alarms and not self._unread:
                self.alarms.add(row.id, row.id + 1)  # behind the older ones
            else:
                self._send(row, late=False)
        self._tokens = min(self._rate / 4 + 1, self._tokens + (now_ns - self._tokens_ns) / NS * self._rate)
        self._tokens_ns = now_ns
        while draining and self._tokens >= 1 and self._has_room(self._half) and (row := self._next(self.backlog)):
            self._send(row, late=True)
            self._tokens -= 1
        if now_ns < self._unread.until_ns:
            return min(1.0, (self._unread.until_ns - now_ns) / NS)
        waits_for_tokens = draining and self.backlog and self._has_room(self._half)
        return max(0.005, (1 - self._tokens) / self._rate) if waits_for_tokens else 1.0

    def _next(self, lane: Lane) -> Stored | None:
        """The next row of the backlog; none while it cannot be read, which is tried less and less often."""
        now_ns = self._clock.mono_ns()
        if now_ns < self._unread.until_ns:
            return None
        try:
            row = lane.next()
        except SpoolError as error:
            if isinstance(error, SpoolDamageError):
                self._source.suspect(self.generation)
            if self._unread:  # the first time it may just be about to be exchanged
                self._health.fault("publish.spool", str(error))
            self._unread.again(now_ns)
            return None
        self._unread.over()
        self._health.clear("publish.spool")
        return row

    def _has_room(self, window: int) -> bool:
        return len(self._sent) < window and self._session.room > 0

    def _send(self, row: Stored, *, late: bool) -> None:
        wall_ms, synced = (row.wall_ms, True) if row.synced else restamp(row, self._offset(row.boot))
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
        retain = row.retain and row.id >= self._newest.get(row.topic, 0)
        if retain:
            self._newest[row.topic] = row.id
        now_ns = self._clock.mono_ns()
        if not self._sent:
            self._confirmed_ns = now_ns
        mid = self._session.publish(topic, payload, retain=retain, user=user)
        self._sent[mid] = (row, now_ns)

    def _offset(self, boot: int) -> int | None:
        """UTC minus monotonic of a boot. While it is not known it is asked for once a second, not for every row."""
        now_ns = self._clock.mono_ns()
        offset, asked_ns = self._offsets.get(boot, (None, -NS))
        if offset is None and now_ns - asked_ns >= NS:
            with suppress(SpoolError):  # sent as unsynced, which it is for all that we know
                offset = self._reader.offset_ms(boot)
            self._offsets[boot] = (offset, now_ns)
        return offset

    def acked(self, ack: Ack) -> None:
        found = self._sent.pop(ack.mid, None)
        if found is None:
            return  # our own state message, or an id that we never sent
        row, _ = found
        self._confirmed_ns = self._clock.mono_ns()
        if ack.code >= 0x80:
            self._refused(row, ack.code)
            return
        self._tries.pop(row.id, None)
        if row.kind == GAP:
            self._health.clear("publish.gap")
        if self._receipts is not None:
            self._receipts.wait_for(row)
        else:
            self._settled.append(row.id)

    def _refused(self, row: Stored, code: int) -> None:
        tries = self._tries[row.id] = self._tries.get(row.id, 0) + 1
        self._health.count("publish.refused")
        if code in _RETRY_CODES and (code == _QUOTA_EXCEEDED or tries < _TRIES):
            self._paused_until_ns = self._clock.mono_ns() + min(30, 2 ** min(tries, 5)) * NS
            (self.alarms if row.kind == ALARM else self.backlog).put_back(row)
            return
        self._tries.pop(row.id)
        if row.kind == GAP:
            # Parking it would be another gap, refused again, without end: it waits for the next session.
            self._health.fault("publish.gap", f"the broker refuses the topic {row.topic}: reason code 0x{code:02x}")
        else:
            self._source.park(row.id, f"reason code 0x{code:02x}", self.generation)

    def receipt(self, payload: bytes) -> None:
        """``{"stream": …, "upto": …}``: the collector has everything so far."""
        try:
            receipt = json_object(payload)
            stream, upto = str(receipt["stream"]), int(str(receipt["upto"]))
        except (ValueError, KeyError):
            self._health.count("publish.bad_receipt")
            return
        if self._receipts is not None:
            self._settled.extend(self._receipts.take(stream, upto))

    def settle(self) -> None:
        if self._settled:
            self._source.settle(self._settled, self.generation)
            self._settled = []

    def check(self) -> None:
        """A broker that took something long ago and confirms nothing is left; raises MqttError."""
        if not self._sent:
            return
        now_ns = self._clock.mono_ns()
        _, sent_ns = next(iter(self._sent.values()))
        if now_ns - self._confirmed_ns > self._timeout_ns or now_ns - sent_ns > _FORGOTTEN_AFTER * self._timeout_ns:
            raise MqttError(Why.NETWORK, f"{self._session.broker.url}: no PUBACK for {self._timeout_ns // NS} s")


def _picture(row: Stored) -> tuple[bytes, str] | None:
    fields = json_object(b"{" + row.body.encode() + b"}")
    try:
        return Path(str(fields["path"])).read_bytes(), str(fields["id"])
    except (OSError, KeyError):
        return None
