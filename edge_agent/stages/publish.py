"""From the spool to the broker: the present first, the backlog beside it, and a row is done at its PUBACK.

    record ──offer(kept)──▶ live ────┐
                                     ├──▶ in flight ──PUBACK──▶ settle (record deletes the row)
    spool ──lanes, rate-limited──────┘

What was not taken while connected (an outage, a restart, a broker that was too slow) is *backlog*: read
from the disk, sent at a limited rate, marked late. Alarms of the backlog go before anything else, in
order, so that a retained alarm state is never overwritten by an older one.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import Final

import structlog

from edge_agent import mqtt
from edge_agent.broker import Broker, MqttError, MqttSettings, Why
from edge_agent.clock import NS, Clock
from edge_agent.errors import SpoolError
from edge_agent.flight import Flight, Source
from edge_agent.health import Health
from edge_agent.lane import SpoolReader, Unread
from edge_agent.mqtt import Ack, Message, Session
from edge_agent.outbox import ALARM, Stored
from edge_agent.payload import message
from edge_agent.schedule import Backoff
from edge_agent.steadiness import Steadiness

log = structlog.get_logger("publish")

_LIVE_MAX: Final = 5_000
_WORDS_MAX: Final = 100
_STATE_EVERY_S: Final = 5.0
_DRAIN_S: Final = 1.5  # at the end, for what is in flight …
_GOODBYE_S: Final = 0.7  # … and for our last word
_SLOW_RETRY_S: Final = 60.0  # after a refusal: no lock-out storm
_RETRY_S: Final = 15.0  # at most, half as much more or less: a broker that is back is found soon, not by all at once
_REFUSALS: Final = {Why.AUTH, Why.TAKEN_OVER}


class _ExchangedError(Exception):
    """Another database is in use now: other rows, other ids."""


class Publisher:
    """One thread: connects, sends, settles, for ever."""

    def __init__(
        self,
        settings: MqttSettings,
        root: str,
        client_id: str,
        source: Source,
        clock: Clock,
        health: Health,
        *,
        state: Callable[[str], dict[str, object]],
        on_command: Callable[[str, bytes], dict[str, object] | None],
    ) -> None:
        self._settings = settings
        self._root = root
        self._client_id = settings.client_id or client_id
        self._source = source
        self._clock = clock
        self._health = health
        self._state = state
        self._on_command = on_command
        self._brokers = [Broker.parse(url) for url in settings.brokers]
        self._legacy: dict[str, bool] = {}  # broker → whether it speaks MQTT 3.1.1 only
        self._errors: dict[str, str] = {}  # broker → why not
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._live: deque[Stored] = deque()
        self._floor: int | None = None  # id from which on rows are live; None: not connected, all is backlog
        self._generation = -1
        self._newest: dict[str, int] = {}
        self._state_dirty = False
        self._words: deque[tuple[str, bytes, bool]] = deque(maxlen=_WORDS_MAX)  # our own, beside the rows
        self._unread = Unread(Backoff(first_s=0.5, cap_s=_RETRY_S, jitter=0))
        self._steadiness = Steadiness(clock, health)
        self.broker: str | None = None
        self.waiting = 0

    # --- from other threads

    def offer(self, kept: list[Stored], generation: int) -> None:
        """Rows that were just committed: sent at once when connected, else they are backlog."""
        with self._lock:
            if self._floor is None or generation != self._generation:
                return
            floor = self._floor
            self._live.extend(row for row in kept if row.id >= floor)
            self.wake()

    def state_changed(self) -> None:
        """The retained state message should be sent again soon."""
        self._state_dirty = True

    def wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """After the thread ended."""
        os.close(self._wake_fd)

    # --- the thread

    def body(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        backoff = Backoff(first_s=0.5, cap_s=_RETRY_S, jitter=0.5)
        turn = 0
        refused = False
        while not stop.is_set():
            progress()
            broker = self._brokers[turn]
            try:
                self._run_session(broker, stop, progress)
                return
            except _ExchangedError:
                log.info("spool is read anew")
                continue
            except SpoolError as error:
                # No reader, so no connection either: there is nothing of which nobody knows how far it got.
                if self._unread:  # the first time it may just be about to be exchanged
                    self._health.fault("publish.spool", str(error))
                now_ns = self._clock.mono_ns()
                self._unread.again(now_ns)
                self._pause((self._unread.until_ns - now_ns) / NS, stop, progress)
                continue
            except MqttError as error:
                self._tell(broker, error)
                refused = refused or error.kind in _REFUSALS
                if self._steadiness.end(without_a_word=error.kind == Why.NETWORK):
                    backoff.reset()  # it worked for a while: that was an outage, not a refusal
                    turn = -1
            turn = (turn + 1) % len(self._brokers)
            if turn == 0:
                wait_s = backoff.fail()
                self._pause(max(wait_s, _SLOW_RETRY_S) if refused else wait_s, stop, progress)
                refused = False

    def _tell(self, broker: Broker, error: MqttError) -> None:
        """One fault for all brokers together: it changes, and is logged, only when an answer does."""
        self._errors[broker.url] = str(error)
        self._health.fault("mqtt", "; ".join(self._errors.values()))
        self._health.count(f"mqtt.{error.kind}")
        if error.kind == Why.VERSION:
            self._legacy.clear()  # the broker was exchanged for one that speaks another version

    def _pause(self, wait_s: float, stop: threading.Event, progress: Callable[[], None]) -> None:
        while wait_s > 0 and not self._clock.wait(stop, min(wait_s, 5.0)):
            progress()
            wait_s -= 5.0

    def _run_session(self, broker: Broker, stop: threading.Event, progress: Callable[[], None]) -> None:
        """One connection, until stop (returns) or its end (raises MqttError, SpoolError or _ExchangedError)."""
        with closing(self._source.reader()) as reader, closing(self._connect(broker)) as session:
            try:
                self._serve(session, self._begin(session, reader), stop, progress)
            except MqttError:
                session.abandon()
                raise
            finally:
                with self._lock:
                    self._floor = None
                    self._live.clear()
                self.broker = None

    def _connect(self, broker: Broker) -> Session:
        session = mqtt.connect(
            broker,
            self._settings,
            self._client_id,
            self._clock,
            will=(f"{self._root}/agent", message(self._state("offline"))),
            legacy=self._legacy.get(broker.url),
        )
        if session.legacy and broker.url not in self._legacy:
            log.info("broker speaks MQTT 3.1.1 only", broker=broker.url)
        self._legacy[broker.url] = session.legacy
        return session

    def _begin(self, session: Session, reader: SpoolReader) -> Flight:
        if reader.generation != self._generation:
            self._newest.clear()  # other rows, other ids
        flight = Flight(
            session,
            reader,
            self._source,
            self._settings,
            self._root,
            self._clock,
            self._health,
            self._newest,
            self._unread,
        )
        session.watch(self._wake_fd)
        session.subscribe(f"{self._root}/command/+")
        if self._settings.receipt_topic:
            session.subscribe(self._settings.receipt_topic)
        self.broker = session.broker.url
        self._errors.clear()
        self._steadiness.begin()
        self._health.clear("mqtt")  # before the birth, which names the faults there are
        self._words.clear()
        self._say("online")
        with self._lock:
            self._generation = reader.generation
            self._floor = floor = self._source.next_id
        flight.alarms.add(0, floor)
        flight.backlog.add(0, floor)
        return flight

    def _say(self, state: str) -> None:
        self._state_dirty = False
        self._words.append((f"{self._root}/agent", message(self._state(state)), True))

    def _speak(self, session: Session) -> int:
        """Send our own words while the broker takes more; the packet id of the last one, or 0."""
        mid = 0
        while self._words and session.room > 0:
            topic, payload, retain = self._words.popleft()
            mid = session.publish(topic, payload, retain=retain)
        return mid

    def _serve(self, session: Session, flight: Flight, stop: threading.Event, progress: Callable[[], None]) -> None:
        stated_ns = self._clock.mono_ns()
        stopping_ns = 0
        try:
            while True:
                progress()
                self._spill(flight)
                self._speak(session)
                wait_s = flight.fill(self._live, draining=not stopping_ns)
                self.waiting = len(self._live)
                for event in session.step(min(wait_s, 1.0)):
                    if isinstance(event, Ack):
                        flight.acked(event)
                    elif isinstance(event, Message):
                        self._received(event, flight)
                flight.settle()
                flight.check()
                self._steadiness.look()
                now_ns = self._clock.mono_ns()
                if self._source.generation != flight.generation:
                    raise _ExchangedError
                if self._state_dirty and now_ns - stated_ns > _STATE_EVERY_S * NS:
                    stated_ns = now_ns
                    self._say("online")
                if stop.is_set():
                    stopping_ns = stopping_ns or now_ns
                    if not (flight.busy or self._live) or now_ns - stopping_ns > _DRAIN_S * NS:
                        self._say_goodbye(session, flight)
                        return
        finally:
            flight.settle()

    def _spill(self, flight: Flight) -> None:
        """Too slow a broker: what waits in memory becomes backlog, which is on the disk anyway."""
        if len(self._live) <= _LIVE_MAX:
            return
        with self._lock:
            rows = list(self._live)
            self._live.clear()
            self._live.extend(row for row in rows if row.kind == ALARM)
        flight.backlog.add(rows[0].id, rows[-1].id + 1)
        self._health.count("publish.spilled")

    def _say_goodbye(self, session: Session, flight: Flight) -> None:
        """The retained state becomes offline by our own word; if nobody confirms it, by the last will."""
        self._words.clear()
        self._say("offline")
        mid = 0
        deadline_ns = self._clock.mono_ns() + int(_GOODBYE_S * NS)
        while self._clock.mono_ns() < deadline_ns:
            mid = self._speak(session) or mid
            for event in session.step(0.1):
                if isinstance(event, Ack):
                    flight.acked(event)
                    if event.mid == mid:
                        return
        session.abandon()

    def _received(self, event: Message, flight: Flight) -> None:
        if event.topic == self._settings.receipt_topic:
            flight.receipt(event.payload)
            return
        name = event.topic.rpartition("/")[2]
        if event.retain:
            self._health.count("command.retained_ignored")  # an order from the past
            return
        reply = self._on_command(name, event.payload)
        if reply is not None:
            self._words.append((f"{self._root}/reply/{name}", message(reply), False))
