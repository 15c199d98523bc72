"""What may be on its way at once, at which rate, and when a broker is left: in imagined time."""

from __future__ import annotations

import json
from collections import deque

import pytest

from edge_agent.broker import Broker, MqttError, MqttSettings
from edge_agent.clock import ManualClock
from edge_agent.errors import SpoolDamageError, SpoolError
from edge_agent.flight import Flight
from edge_agent.health import Health
from edge_agent.lane import Unread
from edge_agent.mqtt import Ack
from edge_agent.outbox import ALARM, EVIDENCE, TELEMETRY, Stored
from edge_agent.schedule import Backoff


class FakeSession:
    def __init__(self) -> None:
        self.broker = Broker.parse("mqtt://broker")
        self.receive_maximum = 65535
        self.maximum_packet_bytes = 1 << 20
        self.legacy = False
        self.room = 65535
        self.sent: list[tuple[str, bytes, bool, list]] = []

    def publish(self, topic, payload, *, retain=False, user=()) -> int:
        self.sent.append((topic, payload, retain, list(user)))
        return len(self.sent)


class FakeSpool:
    """Reader and source at once."""

    generation = 1

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.settled: list[int] = []
        self.parked: list[tuple[int, str]] = []
        self.reads = 0
        self.broken: SpoolError | None = None
        self.suspected: list[int] = []

    def rows(self, after: int, before: int, count: int, *, alarms: bool) -> list[Stored]:
        self.reads += 1
        if self.broken is not None:
            raise self.broken
        return [row for row in self.stored if after < row.id < before and (row.kind == ALARM) == alarms][:count]

    def offset_ms(self, _boot: int) -> int | None:
        return None

    def suspect(self, generation: int) -> None:
        self.suspected.append(generation)

    def settle(self, ids: list[int], _generation: int) -> None:
        self.settled += ids

    def park(self, row_id: int, reason: str, _generation: int) -> None:
        self.parked.append((row_id, reason))


class Air:
    def __init__(self, **settings) -> None:
        self.clock = ManualClock()
        self.session = FakeSession()
        self.spool = FakeSpool()
        self.live: deque[Stored] = deque()
        self.newest: dict[str, int] = {}
        self.health = Health(self.clock)
        self.unread = Unread(Backoff(first_s=1.0, cap_s=8.0, jitter=0))
        settings = {"brokers": ["mqtt://broker"], **settings}
        self.flight = Flight(
            self.session, self.spool, self.spool, MqttSettings(**settings), "edge/a/b", self.clock,
            self.health, self.newest, self.unread,
        )  # fmt: skip

    def row(self, n: int, kind: int = TELEMETRY, body: str = "") -> Stored:
        topic = {TELEMETRY: "telemetry/main", ALARM: "alarm/hot", EVIDENCE: "evidence/eye"}[kind]
        return Stored(n, "s", n, kind, topic, kind == ALARM, 1, 0, 0, True, body or f'"n":{n}')

    def confirm(self) -> None:
        for mid in list(self.flight._sent):
            self.flight.acked(Ack(mid, 0))

    def seqs(self, *, late: bool | None = None) -> list[int]:
        fields = [json.loads(payload) for _, payload, _, _ in self.session.sent]
        return [f["seq"] for f in fields if late is None or f["late"] is late]


@pytest.mark.parametrize("rate", [10.0, 100.0, 1000.0])
def test_the_backlog_drains_at_its_rate(rate):
    """Over ten seconds, looked at twenty times a second, the backlog leaves at the configured rate, within a burst."""
    air = Air(drain_rate=rate, window=20_000)
    air.spool.stored = [air.row(n) for n in range(1, 20_000)]
    air.flight.backlog.add(0, 1 << 40)
    for _ in range(200):
        air.clock.advance(0.05)
        air.flight.fill(air.live)
        air.confirm()
    assert 9 * rate <= len(air.session.sent) <= 10.3 * rate + 2
    assert air.seqs(late=True) == sorted(air.seqs())


def test_a_disk_that_cannot_be_read_holds_up_nothing_but_the_backlog():
    """Readings and alarms of now go on, the disk is tried less and less often, and then all of it arrives."""
    air = Air()
    air.spool.stored = [air.row(1), air.row(2, ALARM)]
    air.flight.alarms.add(0, 3)
    air.flight.backlog.add(0, 3)
    air.spool.broken = SpoolError("input/output error")
    for n in range(600):
        air.live.append(air.row(3 + n, ALARM if n % 10 == 0 else TELEMETRY))
        assert 0 < air.flight.fill(air.live) <= 1.0
        air.confirm()
        air.clock.advance(0.1)
    assert air.seqs(late=False) == list(range(3, 603))
    assert 5 <= air.spool.reads <= 12, "in a minute"
    assert [fault.source for fault in air.health.faults()] == ["publish.spool"]
    air.spool.broken = None
    air.clock.advance(8)
    air.flight.fill(air.live)
    assert air.seqs(late=True) == [2, 1], "alarms first"
    assert [retain for _, payload, retain, _ in air.session.sent if json.loads(payload)["seq"] == 2] == [False]
    assert air.health.faults() == []
    assert air.spool.suspected == []


def test_a_page_that_cannot_be_read_is_suspected_also_by_the_next_session():
    """Damage is told to who can mend it, and a new session does not ask the disk sooner than the last would have."""
    air = Air()
    air.flight.backlog.add(0, 3)
    air.spool.broken = SpoolDamageError("database disk image is malformed")
    for _ in range(3):
        air.clock.advance(8)
        air.flight.fill(air.live)
    assert air.spool.suspected == [1, 1, 1]
    again = Air()
    again.clock, again.spool = air.clock, air.spool
    flight = Flight(
        again.session, air.spool, air.spool, MqttSettings(brokers=["mqtt://broker"]), "edge/a/b", air.clock,
        air.health, {}, air.unread,
    )  # fmt: skip
    flight.backlog.add(0, 3)
    air.clock.advance(2)
    flight.fill(again.live)
    assert air.spool.reads == 3
    air.clock.advance(2)
    flight.fill(again.live)
    assert air.spool.reads == 4


def test_near_the_end_the_backlog_stays():
    """Told not to drain, only the present is sent."""
    air = Air()
    air.spool.stored = [air.row(n) for n in range(1, 50)]
    air.flight.backlog.add(0, 1 << 40)
    air.live.append(air.row(50))
    air.clock.advance(10)
    assert air.flight.fill(air.live, draining=False) == 1.0
    assert air.seqs() == [50]


def test_half_of_the_window_is_for_the_present():
    """With the backlog's half full, live rows still go; with all of it full, nothing does."""
    air = Air(window=10)
    air.spool.stored = [air.row(n) for n in range(1, 50)]
    air.flight.backlog.add(0, 50)
    air.clock.advance(10)
    air.flight.fill(air.live)
    assert len(air.session.sent) == 5
    air.live.extend(air.row(n) for n in range(50, 60))
    air.flight.fill(air.live)
    assert air.seqs(late=False) == [50, 51, 52, 53, 54]
    assert len(air.live) == 5


def test_waiting_for_confirmations_is_no_busy_loop():
    """With the window full and a backlog behind it, the next look is a second away, or the next PUBACK."""
    air = Air(window=2)
    air.spool.stored = [air.row(n) for n in range(1, 50)]
    air.flight.backlog.add(0, 50)
    air.clock.advance(10)
    assert air.flight.fill(air.live) == 1.0
    reads = air.spool.reads
    for _ in range(100):
        air.flight.fill(air.live)
    assert air.spool.reads == reads


def test_an_empty_backlog_is_asked_for_once():
    """After the last row was read the disk is not read again and again."""
    air = Air()
    air.spool.stored = [air.row(1)]
    air.flight.backlog.add(0, 50)
    for _ in range(20):
        air.clock.advance(1)
        air.flight.fill(air.live)
        air.confirm()
    assert air.spool.reads <= 2
    assert air.flight.fill(air.live) == 1.0


def test_a_slow_broker_is_not_a_silent_one():
    """While some PUBACK comes within the timeout the broker is kept, however long the queue in flight takes."""
    air = Air(puback_timeout="20s", window=4)
    air.live.extend(air.row(n) for n in range(1, 5))
    air.flight.fill(air.live)
    for mid in (1, 2, 3):
        air.clock.advance(15)
        air.flight.check()
        air.flight.acked(Ack(mid, 0))
    air.clock.advance(19)
    air.flight.check()
    air.clock.advance(2)
    with pytest.raises(MqttError, match="no PUBACK"):
        air.flight.check()


def test_one_forgotten_confirmation_does_not_wait_for_ever():
    """Others are confirmed all the time, one never is: in the end the session is begun anew."""
    air = Air(puback_timeout="20s")
    air.live.append(air.row(1))
    air.flight.fill(air.live)
    for n in range(2, 102):
        air.live.append(air.row(n))
        air.flight.fill(air.live)
        air.flight.acked(Ack(n, 0))
        air.clock.advance(1)
        air.flight.check()
    air.clock.advance(1)
    with pytest.raises(MqttError):
        air.flight.check()


def test_idleness_is_not_silence():
    """After an hour without anything to send, the first row has its whole timeout."""
    air = Air(puback_timeout="20s")
    air.clock.advance(3600)
    air.live.append(air.row(1))
    air.flight.fill(air.live)
    air.flight.check()
    air.clock.advance(19)
    air.flight.check()


def test_a_picture_travels_as_its_bytes(tmp_path):
    """The file is read when it leaves; a file that is gone is parked with the reason."""
    air = Air()
    picture = tmp_path / "e1.jpg"
    picture.write_bytes(b"\xff\xd8 picture")
    air.live.append(air.row(1, EVIDENCE, f'"id":"e1","path":"{picture}"'))
    air.live.append(air.row(2, EVIDENCE, f'"id":"e2","path":"{tmp_path}/gone.jpg"'))
    air.flight.fill(air.live)
    ((topic, payload, retain, user),) = air.session.sent
    assert (topic, payload, retain) == ("edge/a/b/evidence/eye", b"\xff\xd8 picture", False)
    assert dict(user)["id"] == "e1"
    assert air.spool.parked == [(2, "picture file is gone")]


def test_without_properties_the_topic_carries_them(tmp_path):
    """To an MQTT 3.1.1 broker a picture's stream, seq and id go in the topic."""
    air = Air()
    air.session.legacy = True
    picture = tmp_path / "e1.jpg"
    picture.write_bytes(b"x")
    air.live.append(air.row(7, EVIDENCE, f'"id":"e1","path":"{picture}"'))
    air.flight.fill(air.live)
    assert air.session.sent[0][0] == "edge/a/b/evidence/eye/s/7/e1"
