"""From the spool to the broker: the present first, the backlog beside it, and a row is done at its PUBACK.

    record ──offer(kept)──▶ live ────┐
                                     ├──▶ in flight ──PUBACK──▶ settle (record deletes the row)
    spool ──ranges, rate-limited─────┘

What was not taken while connected (an outage, a restart, a broker that was too slow) is *backlog*: read
from the disk, sent at a limited rate, marked late. Alarms of the backlog go before anything else, in
order, so that a retained alarm state is never overwritten by an older one.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from edge_agent import mqtt
from edge_agent.clock import NS, Clock
from edge_agent.flight import BEFORE_ALL, Flight, MqttSettings, Source, SpoolReader
from edge_agent.health import Health
from edge_agent.mqtt import Ack, Broker, Message, MqttError, Session
from edge_agent.outbox import ALARM, Stored
from edge_agent.payload import message
from edge_agent.schedule import Backoff

log = structlog.get_logger("publish")

_LIVE_MAX: Final = 20_000
_STATE_EVERY_S: Final = 5.0


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
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._live: deque[Stored] = deque()
        self._ranges: deque[tuple[int, int]] = deque()
        self._floor: int | None = None  # None: not connected, nothing is kept in memory
        self._generation = -1
        self._state_dirty = False
        self.broker: str | None = None
        self.waiting = 0

    # --- from other threads

    def offer(self, kept: list[Stored], generation: int) -> None:
        """Rows that were just committed: sent at once when connected, else they are backlog."""
        with self._lock:
            if self._floor is None or generation != self._generation:
                return
            self._live.extend(row for row in kept if row.id >= self._floor)
            if len(self._live) > _LIVE_MAX:
                self._spill()
        self.wake()

    def _spill(self) -> None:
        """Too slow a broker: what waits in memory becomes backlog, which is on the disk anyway."""
        alarms = [row for row in self._live if row.kind == ALARM]
        self._ranges.append((self._live[0].id - 1, self._live[-1].id + 1))
        self._live = deque(alarms)
        self._health.count("publish.spilled")

    def state_changed(self) -> None:
        """The retained state message should be sent again soon."""
        self._state_dirty = True

    def wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    # --- the thread

    def body(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        backoff = Backoff(first_s=0.5, cap_s=60.0, jitter=0.5)
        turn = 0
        while not stop.is_set():
            progress()
            broker = self._brokers[turn % len(self._brokers)]
            opened_ns = self._clock.mono_ns()
            try:
                self._run_session(broker, stop, progress)
                return
            except MqttError as error:
                turn = self._after(error, turn, backoff, opened_ns, stop, progress)

    def _after(
        self,
        error: MqttError,
        turn: int,
        backoff: Backoff,
        opened_ns: int,
        stop: threading.Event,
        progress: Callable[[], None],
    ) -> int:
        """Decide which broker is next and when; the next turn."""
        self._health.fault("mqtt", str(error))
        self._health.count(f"mqtt.{error.kind}")
        if error.kind == mqtt.VERSION:
            self._legacy.clear()  # the broker was exchanged for one that speaks another version
        if self._clock.mono_ns() - opened_ns > 30 * NS:
            backoff.reset()  # it worked for a while: that was an outage, not a refusal
            turn = -1
        turn += 1
        if turn % len(self._brokers) == 0 or error.kind == mqtt.TAKEN_OVER:
            wait_s = backoff.fail()
            if error.kind in {mqtt.AUTH, mqtt.TAKEN_OVER}:
                wait_s = max(wait_s, 15.0)  # no lock-out storm
            while wait_s > 0 and not self._clock.wait(stop, min(wait_s, 5.0)):
                progress()
                wait_s -= 5.0
        return turn

    def _run_session(self, broker: Broker, stop: threading.Event, progress: Callable[[], None]) -> None:
        """One connection, until stop (returns) or its end (raises MqttError)."""
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
        reader = self._source.reader()
        flight = Flight(session, reader, self._source, self._settings, self._root, self._clock, self._health)
        graceful = False
        try:
            self._begin(session, reader)
            self._health.clear("mqtt")
            self.broker = broker.url
            self._serve(session, flight, stop, progress)
            graceful = True
        finally:
            with self._lock:
                self._floor = None
                self._live.clear()
                self._ranges.clear()
            self.broker = None
            flight.settle()
            reader.close()
            session.close(leave_will=not graceful)

    def _begin(self, session: Session, reader: SpoolReader) -> None:
        session.watch(self._wake_fd)
        session.subscribe(f"{self._root}/command/+")
        if self._settings.receipt_topic:
            session.subscribe(self._settings.receipt_topic)
        session.publish(f"{self._root}/agent", message(self._state("online")), retain=True)
        with self._lock:
            self._generation = reader.generation
            self._floor = self._source.next_seq
            self._ranges = deque([(BEFORE_ALL, self._floor)])

    def _serve(self, session: Session, flight: Flight, stop: threading.Event, progress: Callable[[], None]) -> None:
        with self._lock:
            floor = self._floor or 0
        flight.load_alarms(floor)
        stated_ns = self._clock.mono_ns()
        stopping_ns = 0
        while True:
            progress()
            wait_s = flight.fill(self._live, self._ranges, self._lock)
            self.waiting = len(self._live)
            for event in session.step(min(wait_s, 1.0)):
                if isinstance(event, Ack):
                    flight.acked(event)
                elif isinstance(event, Message):
                    self._received(session, event, flight)
            flight.settle()
            flight.check()
            now_ns = self._clock.mono_ns()
            if self._source.generation != flight.generation:
                raise MqttError(mqtt.NETWORK, "the database was exchanged")
            if self._state_dirty and now_ns - stated_ns > _STATE_EVERY_S * NS:
                self._state_dirty, stated_ns = False, now_ns
                session.publish(f"{self._root}/agent", message(self._state("online")), retain=True)
            if stop.is_set():
                stopping_ns = stopping_ns or now_ns
                if not (flight.busy or self._live) or now_ns - stopping_ns > 3 * NS:
                    self._say_goodbye(session)
                    return

    def _say_goodbye(self, session: Session) -> None:
        """The retained state becomes offline by our own word, and is confirmed before we go."""
        mid = session.publish(f"{self._root}/agent", message(self._state("offline")), retain=True)
        deadline_ns = self._clock.mono_ns() + 2 * NS
        while self._clock.mono_ns() < deadline_ns:
            if any(isinstance(event, Ack) and event.mid == mid for event in session.step(0.2)):
                return

    def _received(self, session: Session, event: Message, flight: Flight) -> None:
        if event.topic == self._settings.receipt_topic:
            flight.receipt(event.payload)
            return
        name = event.topic.rpartition("/")[2]
        if event.retain:
            self._health.count("command.retained_ignored")  # an order from the past
            return
        reply = self._on_command(name, event.payload)
        if reply is not None:
            session.publish(f"{self._root}/reply/{name}", message(reply))
