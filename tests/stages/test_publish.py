"""Rows reach the broker at least once, the present first, whatever the broker does."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from itertools import pairwise
from typing import Self

import pytest

from edge_agent import flight as flight_module
from edge_agent import mqtt, steadiness
from edge_agent import reader as reader_module
from edge_agent.broker import Broker, MqttError, MqttSettings, Why
from edge_agent.clock import NS, ManualClock, SystemClock
from edge_agent.errors import SpoolError
from edge_agent.health import Health
from edge_agent.outbox import ALARM, GAP, TELEMETRY, Row
from edge_agent.schedule import Backoff
from edge_agent.spool import Spool
from edge_agent.stages import publish as publish_module
from edge_agent.stages.publish import Publisher
from edge_agent.stages.record import Recorder
from edge_agent.vocabulary import AlarmChange, Reading
from tests.brokers import CONNACK, Ear, Mosquitto, Peer, Publish, Relay, ScriptedBroker, free_port, until

ROOT = "edge/ulsan/press-3"


class Line:
    """A spool and a publisher thread; commits happen when the test says so, in the test's thread."""

    def __init__(self, folder, *urls: str, clock=None, **settings) -> None:
        self.clock = clock or SystemClock()
        self.health = Health(self.clock)
        self.spool = Spool(folder / "spool.db", self.clock, self.health, limit_bytes=1 << 30, durable=False)
        self.spool.open()
        self.recorder = Recorder(
            self.spool, self.clock, self.health, commit_every_s=1.0, history_days=1, formats={"main": {}}
        )
        self.commands: list[tuple[str, bytes]] = []
        self.publisher = Publisher(
            MqttSettings(brokers=list(urls), **settings),
            ROOT,
            "edge-agent-test",
            self.recorder,
            self.clock,
            self.health,
            state=lambda state: {"state": state, "stream": self.spool.stream},
            on_command=self._command,
        )
        self.recorder.on_kept = self.publisher.offer
        self.given = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.publisher.body, args=(self.stop, lambda: None), daemon=True)

    def _command(self, name: str, payload: bytes) -> dict[str, object]:
        self.commands.append((name, payload))
        return {"ok": True}

    def start(self) -> Self:
        self.thread.start()
        return self

    def connected(self) -> Self:
        until(lambda: self.publisher.broker, "connected")
        return self

    def take(self, count: int = 1) -> None:
        """Readings, each in a commit of its own."""
        for _ in range(count):
            self.given += 1
            self.recorder.reading(Reading("main", self.clock.stamp(), {"n": float(self.given)}))
            self.recorder.commit()

    def alarm(self, state: str) -> None:
        stamp = self.clock.stamp()
        self.recorder.alarm(AlarmChange("hot", stamp, state, "high", stamp, "main.n > 1"))
        self.recorder.commit()

    def left(self) -> list:
        """What is still in the spool after all that is known was committed."""
        self.recorder.commit()
        reader = self.spool.reader()
        rows = reader.rows(-1, 1 << 60, 1 << 30, alarms=False) + reader.rows(-1, 1 << 60, 1 << 30, alarms=True)
        reader.close()
        return rows

    def all_gone(self) -> bool:
        return not self.left()

    def end(self) -> None:
        self.stop.set()
        self.publisher.wake()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.thread.is_alive():
            self.end()
        self.publisher.close()
        self.recorder.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Retries that take half a minute in a plant take a moment here."""
    monkeypatch.setattr(publish_module, "Backoff", lambda **_: Backoff(first_s=0.05, cap_s=0.05, jitter=0))
    monkeypatch.setattr(publish_module, "_SLOW_RETRY_S", 0.3)
    monkeypatch.setattr(publish_module, "_STATE_EVERY_S", 0.1)


@pytest.fixture
def _patient(monkeypatch):
    """A busy test machine may take longer for a goodbye than a plant would wait."""
    monkeypatch.setattr(publish_module, "_DRAIN_S", 8.0)
    monkeypatch.setattr(publish_module, "_GOODBYE_S", 8.0)


@pytest.fixture
def mosquitto(tmp_path):
    with Mosquitto(tmp_path) as broker:
        yield broker


def numbers(messages) -> list[int]:
    return [int(m.fields["values"]["n"]) for m in messages if "values" in m.fields]


# --- the ordinary day, with mosquitto


def test_live_rows_arrive_in_order_and_leave_the_disk(tmp_path, mosquitto):
    """A reading arrives with stream, seq, time, and late false; after its PUBACK the row is gone."""
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url) as line:
        line.start().connected()
        line.take(20)
        until(lambda: len(ear.of("telemetry")) == 20)
        heard = ear.of("telemetry")
        assert numbers(heard) == list(range(1, 21))
        assert [m.fields["seq"] for m in heard] == list(range(1, 21))
        assert {(m.fields["stream"], m.fields["late"], m.retain) for m in heard} == {(line.spool.stream, False, False)}
        assert heard[0].topic == f"{ROOT}/telemetry/main"
        until(line.all_gone, "settled")


@pytest.mark.usefixtures("_patient")
def test_the_state_is_retained_online_and_offline_by_our_own_word(tmp_path, mosquitto):
    """At a clean end everything committed has arrived and the last message is the retained offline state."""
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url) as line:
        line.start().connected()
        line.take(50)
        line.end()
        assert line.left() == []
        until(lambda: ear.heard[-1].fields.get("state") == "offline")
        assert numbers(ear.of("telemetry")) == list(range(1, 51))
        assert [m.fields["state"] for m in ear.of("agent")] == ["online", "offline"]
    with Ear(mosquitto.port) as late_ear:
        until(lambda: late_ear.heard)
        assert (late_ear.heard[0].retain, late_ear.heard[0].fields["state"]) == (True, "offline")


def test_the_birth_after_an_outage_does_not_call_the_broker_gone(tmp_path, mosquitto):
    """Who reads the retained state has the broker before him: it is named as at fault by no message."""
    nobody = f"mqtt://127.0.0.1:{free_port()}"
    with Line(tmp_path, nobody, mosquitto.url) as line:
        line.publisher._state = lambda state: {"state": state, "faults": [f.source for f in line.health.faults()]}
        line.start().connected()
        with Ear(mosquitto.port) as ear:
            until(lambda: ear.of("agent"))
            assert line.health.counters()["mqtt.network"] == 1
            assert ear.of("agent")[0].fields == {"state": "online", "faults": []}


@pytest.mark.usefixtures("_patient")
def test_a_clean_end_does_not_wait_for_the_backlog(tmp_path):
    """With a long backlog the end comes at once, said by our own word; the backlog stays on the disk."""
    with ScriptedBroker() as broker, Line(tmp_path, broker.url, drain_rate=20) as line:
        line.recorder._readings.extend(Reading("main", line.clock.stamp(), {"n": float(n)}) for n in range(3000))
        line.recorder.commit()
        line.start().connected()
        until(lambda: broker.published("telemetry"))
        line.end()
        assert broker.published()[-1].fields["state"] == "offline"
        until(lambda: broker.left == [0, 1], "goodbye was said")
        assert len(line.left()) > 2000


def test_after_an_outage_the_present_comes_first_and_the_backlog_is_late(tmp_path, mosquitto):
    """Rows of the outage come marked late and in order, at the limited rate, while new ones pass them."""
    with Line(tmp_path, mosquitto.url, drain_rate=100) as line:
        line.take(300)
        with Ear(mosquitto.port) as ear:
            line.start().connected()
            line.take(5)
            until(lambda: len(ear.of("telemetry")) == 305)
            heard = ear.of("telemetry")
        live = [m for m in heard if not m.fields["late"]]
        late = [m for m in heard if m.fields["late"]]
        assert numbers(live) == list(range(301, 306))
        assert numbers(late) == list(range(1, 301))
        assert heard.index(live[-1]) < 200, "the present did not wait for the backlog"
        until(line.all_gone)


def test_a_broker_that_goes_and_returns_misses_nothing(tmp_path, mosquitto):
    """Over three outages every row arrives at least once; repeats carry the same identity and values."""
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url) as line:
        line.start().connected()
        for _ in range(3):
            line.take(10)
            mosquitto.stop()
            line.take(10)
            until(lambda: not line.publisher.broker)
            mosquitto.start()
            ear.wait()
            line.connected()
            until(line.all_gone)
        line.take(1)
        until(lambda: set(numbers(ear.of("telemetry"))) >= {61})
        found: dict[int, set[str]] = {}
        for m in ear.of("telemetry"):
            found.setdefault(m.fields["seq"], set()).add(json.dumps(m.fields["values"]))
        assert all(len(values) == 1 for values in found.values())
    assert line.health.counters()["mqtt.network"] >= 3


def test_a_broker_of_the_old_protocol_is_spoken_to_in_it(tmp_path):
    """amqtt knows MQTT 3.1.1 only: found out by ourselves, and everything arrives."""
    import asyncio

    from amqtt.broker import Broker

    port, loop = free_port(), asyncio.new_event_loop()
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def make() -> Broker:
        broker = Broker(config)
        await broker.start()
        return broker

    broker = asyncio.run_coroutine_threadsafe(make(), loop).result(10)
    try:
        with Line(tmp_path, f"mqtt://127.0.0.1:{port}") as line:
            line.take(5)
            line.start().connected()
            line.take(5)
            until(line.all_gone)
            line.end()
    finally:
        asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


# --- who says no, and how


def test_accepted_but_never_answered(tmp_path):
    """Something that accepts TCP and stays silent is left after the connect timeout, and the next broker is tried."""
    with (
        ScriptedBroker(on_connect=lambda peer: None) as mute,
        ScriptedBroker() as good,
        Line(tmp_path, mute.url, good.url, connect_timeout="1s") as line,
    ):
        line.start().connected()
        assert line.publisher.broker == good.url
        assert line.health.counters()["mqtt.silent"] == 1


def test_a_broker_that_confirms_nothing_is_left_and_everything_sent_again(tmp_path, monkeypatch):
    """CONNACK yes, PUBACK never: after the PUBACK timeout a new session sends the same rows again, marked late."""

    def deaf_at_first(peer: Peer, publish: Publish) -> None:
        if peer.number > 1:
            peer.puback(publish.mid)

    with ScriptedBroker(deaf_at_first) as broker, Line(tmp_path, broker.url, puback_timeout="1s", window=8) as line:
        line.start().connected()
        line.take(20)
        until(lambda: len(broker.sessions) == 2 and line.all_gone())
        first, second = broker.sessions
        sent_first = [p.fields["seq"] for p in first.published if "seq" in p.fields]
        assert sent_first == list(range(1, len(sent_first) + 1))
        assert len(sent_first) <= 8, "the window holds"
        again = {p.fields["seq"]: p.fields for p in second.published if "seq" in p.fields}
        assert set(again) == set(range(1, 21))
        assert all(fields["late"] for fields in again.values())
        assert not any(p.duplicate for p in second.published), "a new session has no old packet ids"


def test_a_slow_line_is_no_fault(tmp_path, mosquitto):
    """At 9600 bytes a second and half a second there and back all arrives, once, in one session."""
    with (
        Ear(mosquitto.port) as ear,
        Relay(mosquitto.port, bytes_per_s=9600, delay_s=0.25) as relay,
        Line(tmp_path, relay.url, puback_timeout="1s") as line,
    ):
        line.take(50)
        line.start().connected()
        line.take(10)
        until(lambda: len(ear.of("telemetry")) == 60, "everything")
        until(line.all_gone, "settled")
        assert sorted(numbers(ear.of("telemetry"))) == list(range(1, 61))
        assert line.health.counters() == {}


def test_a_lost_puback_makes_a_repeat_that_can_be_told(tmp_path):
    """The broker took it, the PUBACK got lost: it comes again with the same stream, seq, time and values, late."""

    def hang_up_instead(peer: Peer, publish: Publish) -> None:
        if peer.number == 1 and "values" in publish.fields:
            peer.hang_up()
        else:
            peer.puback(publish.mid)

    with ScriptedBroker(hang_up_instead) as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        line.take(1)
        until(line.all_gone)
        one, two = (publish.fields for publish in broker.published("telemetry"))
        assert (one.pop("late"), two.pop("late")) == (False, True)
        assert one == two


def test_quota_exceeded_is_waited_for(tmp_path, monkeypatch):
    """0x97: the row stays, comes again after a pause, and nothing is parked."""
    refusals = iter([0x97, 0x97])

    def sometimes(peer: Peer, publish: Publish) -> None:
        peer.puback(publish.mid, next(refusals, 0) if "values" in publish.fields else 0)

    monkeypatch.setattr(flight_module, "NS", 20_000_000)
    with ScriptedBroker(sometimes) as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        line.take(4)
        until(line.all_gone)
        assert {publish.fields["seq"] for publish in broker.published("telemetry")} == {1, 2, 3, 4}
        assert line.health.counters()["publish.refused"] == 2
        assert "publish.parked" not in line.health.counters()


@pytest.mark.parametrize("code", [0x87, 0x90, 0x99])
def test_poison_is_parked_and_said(tmp_path, code):
    """A refusal for good puts the row aside, a gap tells which and why, and the queue goes on."""

    def picky(peer: Peer, publish: Publish) -> None:
        peer.puback(publish.mid, code if publish.fields.get("values") == {"n": 2.0} else 0)

    with ScriptedBroker(picky) as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        line.take(4)
        until(lambda: line.all_gone() and broker.published("gap"))
        (gap,) = (publish.fields for publish in broker.published("gap"))
        assert (gap["of"], gap["from"], gap["to"], gap["count"]) == (line.spool.stream, 2, 2, 1)
        assert f"0x{code:02x}" in gap["reason"]
        parked = line.spool._db.writer.execute("SELECT seq, body FROM parked").fetchall()
        assert parked == [(2, '"values":{"n":2.0}')]
        assert not broker.sessions[1:], "and it was one session"


def test_a_refused_gap_does_not_breed(tmp_path):
    """Where even the gap topic is refused, gaps wait on the disk; they do not make gaps of gaps for ever."""

    def only_state(peer: Peer, publish: Publish) -> None:
        peer.puback(publish.mid, 0 if "state" in publish.fields else 0x87)

    with ScriptedBroker(only_state) as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        line.take(5)
        until(lambda: len(line.left()) == line.spool.next_seq - 1 - 5 and len(broker.published("gap")) >= 1)
        before = line.spool.next_seq
        for _ in range(20):
            line.recorder.commit()
            time.sleep(0.01)
        assert line.spool.next_seq == before
        assert all(row.kind == GAP for row in line.left())
        assert any(fault.source == "publish.gap" for fault in line.health.faults())


def test_packet_ids_that_were_never_sent_and_any_order_are_taken(tmp_path):
    """PUBACKs for unknown ids are ignored; PUBACKs in reverse order settle the right rows."""
    waiting: list[int] = []

    def reverse(peer: Peer, publish: Publish) -> None:
        if "values" not in publish.fields:
            peer.puback(publish.mid)
            return
        waiting.append(publish.mid)
        if len(waiting) == 5:
            for mid in [60_000, *reversed(waiting[1:]), 12_345]:
                peer.puback(mid)

    with ScriptedBroker(reverse) as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        line.take(5)
        until(lambda: [row.seq for row in line.left()] == [1], "all but the first are settled")
        broker.sessions[0].puback(waiting[0])
        until(line.all_gone)


@pytest.mark.usefixtures("_patient")
def test_the_broker_s_window_holds_for_everything(tmp_path):
    """Receive Maximum 1: never two messages without a PUBACK, our own words included."""
    unconfirmed, most = [], []

    def slow(peer: Peer, publish: Publish) -> None:
        unconfirmed.append(publish.mid)
        most.append(len(unconfirmed))
        threading.Timer(0.005, lambda: (unconfirmed.remove(publish.mid), peer.puback(publish.mid))).start()

    def one_at_a_time(peer: Peer) -> None:
        peer.connack(properties=b"\x21\x00\x01")

    with ScriptedBroker(slow, one_at_a_time) as broker, Line(tmp_path, broker.url) as line:
        line.take(10)
        line.alarm("active-unacknowledged")
        line.start().connected()
        for _ in range(10):
            line.take(1)
            line.publisher.state_changed()
            line.publisher.wake()
        until(line.all_gone)
        line.end()
        assert max(most) == 1
        assert broker.published()[-1].fields["state"] == "offline"


def test_what_the_broker_finds_too_large_is_parked(tmp_path):
    """A row beyond Maximum Packet Size is put aside at once instead of being disconnected for it again and again."""

    def small(peer: Peer) -> None:
        peer.connack(properties=b"\x27" + (400).to_bytes(4, "big"))

    with ScriptedBroker(on_connect=small) as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        line.recorder._rows.append(Row(TELEMETRY, "telemetry/big", line.clock.stamp(), f'"pad":"{"x" * 500}"'))
        line.take(1)
        until(lambda: line.all_gone() and broker.published("gap"))
        assert "larger than the broker takes" in broker.published("gap")[0].fields["reason"]
        assert len(broker.sessions) == 1


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        (lambda peer: peer.connack(0x86), "auth"),
        (lambda peer: peer.connack(0x87), "auth"),
        (lambda peer: peer.send(CONNACK, bytes([0, 1 if peer.version == 5 else 5])), "auth"),  # 3.1.1 only
        (lambda peer: peer.send(CONNACK, bytes([0, 1 if peer.version == 5 else 4])), "auth"),
        (lambda peer: (peer.connack(), peer.disconnect(0x8E)), "taken-over"),
        (lambda peer: (peer.connack(), peer.disconnect(0x87)), "auth"),
    ],
)
def test_a_refusal_is_retried_slowly_and_said_clearly(tmp_path, monkeypatch, how, kind):
    """Wrong password, no permission, or a second client with our id: one try per slow period, with a hint."""
    monkeypatch.setattr(publish_module, "_SLOW_RETRY_S", 60.0)
    with ScriptedBroker(on_connect=how) as broker, Line(tmp_path, broker.url) as line:
        line.start()
        until(lambda: line.health.counters().get(f"mqtt.{kind}"))
        tries = len(broker.peers)
        time.sleep(0.3)
        assert len(broker.peers) == tries, "no lock-out storm"
        (fault,) = [fault for fault in line.health.faults() if fault.source == "mqtt"]
        assert "(" in fault.reason, "with a hint"


def test_another_client_with_our_id_is_suspected_where_the_broker_does_not_say_so(tmp_path, mosquitto, monkeypatch):
    """mosquitto 2.0 closes the connection without a word: after three short sessions a fault names the client id."""
    settings = MqttSettings(brokers=[mosquitto.url])
    with Line(tmp_path, mosquitto.url) as line:
        line.start()
        for before in range(3):
            line.connected()
            rival = mqtt.connect(Broker.parse(mosquitto.url), settings, "edge-agent-test", line.clock)
            until(lambda before=before: line.health.counters().get("mqtt.network", 0) > before)
            rival.close()
        until(lambda: "mqtt.sessions" in [fault.source for fault in line.health.faults()])
        (hint,) = [fault.hint for fault in line.health.faults() if fault.source == "mqtt.sessions"]
        assert "client id" in hint
        monkeypatch.setattr(steadiness, "_STEADY_S", 0.2)
        until(lambda: not line.health.faults(), "one that lasts ends it")


def test_a_refusal_by_one_broker_slows_the_whole_round(tmp_path, monkeypatch):
    """While one broker of two refuses us, the unreachable other does not make us knock faster."""
    monkeypatch.setattr(publish_module, "_SLOW_RETRY_S", 60.0)
    nobody = f"mqtt://127.0.0.1:{free_port()}"
    with (
        ScriptedBroker(on_connect=lambda peer: peer.connack(0x86)) as broker,
        Line(tmp_path, broker.url, nobody) as line,
    ):
        line.start()
        until(lambda: line.health.counters().get("mqtt.network"))
        time.sleep(0.3)
        assert len(broker.peers) == 1


def test_a_broker_that_is_back_after_hours_is_found_within_half_a_minute(tmp_path, monkeypatch):
    """However long it was away, the present does not wait long for the next try; and nobody knocks without a pause."""
    tries: list[int] = []

    def nobody(*_args, **_options):
        tries.append(line.clock.mono_ns())
        if line.clock.mono_ns() - tries[0] > 2 * 3600 * NS:
            line.stop.set()
        raise MqttError(Why.NETWORK, "nobody there")

    monkeypatch.setattr(publish_module, "Backoff", Backoff)
    monkeypatch.setattr(publish_module.mqtt, "connect", nobody)
    with Line(tmp_path, "mqtt://127.0.0.1", clock=ManualClock()) as line:
        line.start().thread.join(60)
    pauses = [(after - before) / NS for before, after in pairwise(tries)]
    assert len(pauses) > 100
    assert max(pauses) < 30
    assert min(pauses[10:]) > 5


def test_garbage_instead_of_mqtt_is_no_crash(tmp_path):
    """A far end that answers nonsense is left for the next one."""
    nonsense = [
        b"\x20\xff\xff\xff\x7f" + b"\xff" * 50,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x20\x04\x00\x00\x05\x99",
    ]
    with ExitStack() as stack:
        mad = [
            stack.enter_context(ScriptedBroker(on_connect=lambda peer, says=says: peer.socket.sendall(says)))
            for says in nonsense
        ]
        good = stack.enter_context(ScriptedBroker())
        urls = [broker.url for broker in (*mad, good)]
        line = stack.enter_context(Line(tmp_path, *urls, connect_timeout="1s"))
        line.start()
        until(lambda: line.publisher.broker == good.url)


def test_brokers_in_order_and_back_to_the_first(tmp_path, monkeypatch):
    """The second broker serves while the first is away; after its session the first one is tried first again."""
    first = free_port()
    with ScriptedBroker() as second, Line(tmp_path, f"mqtt://127.0.0.1:{first}", second.url) as line:
        line.start().connected()
        assert line.publisher.broker == second.url
        line.take(1)
        until(line.all_gone)
        monkeypatch.setattr(publish_module, "NS", 1)  # so that the session counts as a long one
        second.sessions[0].hang_up()
        until(lambda: line.health.counters()["mqtt.network"] >= 3, "first asked again")


# --- alarms


def test_alarms_of_an_outage_come_first_and_in_order(tmp_path):
    """After an outage the alarm's states arrive before the telemetry backlog, and the last one stays retained."""
    with ScriptedBroker() as broker, Line(tmp_path, broker.url) as line:
        line.take(50)
        line.alarm("active-unacknowledged")
        line.take(50)
        line.alarm("active-acknowledged")
        line.alarm("normal")
        line.start().connected()
        until(line.all_gone)
        kinds = [p.topic.split("/")[3] for p in broker.published() if "seq" in p.fields]
        assert kinds[:3] == ["alarm"] * 3
        assert [p.fields["state"] for p in broker.published("alarm")] == [
            "active-unacknowledged",
            "active-acknowledged",
            "normal",
        ]
        assert all(p.retain for p in broker.published("alarm"))


def test_a_long_backlog_of_alarms_does_not_hold_up_the_present(tmp_path):
    """Thousands of alarm changes drain a chunk at a time beside the readings of now, and a new one keeps its place."""
    with ScriptedBroker() as broker, Line(tmp_path, broker.url, window=10) as line:
        stamp = line.clock.stamp()
        rows = [Row(ALARM, "alarm/hot", stamp, f'"state":"s{n}"', retain=True) for n in range(2000)]
        line.spool.append(rows)
        line.start().connected()
        line.take(1)
        line.alarm("last")
        until(line.all_gone)
        everything = broker.published()
        telemetry = next(i for i, p in enumerate(everything) if p.topic.endswith("telemetry/main"))
        assert telemetry < 1000
        states = [p.fields["state"] for p in broker.published("alarm")]
        assert states == [f"s{n}" for n in range(2000)] + ["last"]


def test_an_older_alarm_state_never_replaces_a_newer_one(tmp_path, monkeypatch):
    """An alarm that was refused for a moment is sent again, but not retained once a newer state is."""
    refusals = iter([0x97])

    def refuse_first(peer: Peer, publish: Publish) -> None:
        peer.puback(publish.mid, next(refusals, 0) if publish.topic.endswith("alarm/hot") else 0)

    monkeypatch.setattr(flight_module, "NS", 20_000_000)
    with ScriptedBroker(refuse_first) as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        stamp = line.clock.stamp()
        for state in ("active-unacknowledged", "normal"):
            line.recorder.alarm(AlarmChange("hot", stamp, state, "high", stamp, "why"))
        line.recorder.commit()
        until(line.all_gone)
        retained = [p.fields["state"] for p in broker.published("alarm") if p.retain]
        assert [p.fields["state"] for p in broker.published("alarm")] == [
            "active-unacknowledged",
            "normal",
            "active-unacknowledged",
        ]
        assert retained == ["active-unacknowledged", "normal"]


def test_nor_does_it_after_a_reconnect(tmp_path):
    """The newer state was confirmed, the older one not: in the next session the older one comes unretained."""

    def forget_the_first(peer: Peer, publish: Publish) -> None:
        if peer.number == 1 and publish.fields.get("state") == "active-unacknowledged":
            return
        peer.puback(publish.mid)

    with ScriptedBroker(forget_the_first) as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        line.alarm("active-unacknowledged")
        line.alarm("normal")
        until(lambda: len(line.left()) == 1)
        broker.sessions[0].hang_up()
        until(line.all_gone)
        again = broker.sessions[1].published
        assert [(p.fields["state"], p.retain) for p in again if p.topic.endswith("alarm/hot")] == [
            ("active-unacknowledged", False)
        ]


# --- the database behind it changes


def test_a_database_that_is_exchanged_is_no_outage(tmp_path):
    """Disk to memory and back while connected: nothing is lost, and the broker never hears a last will."""
    with ScriptedBroker() as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        line.take(10)
        line.spool.fall_back(OSError("pulled"))
        line.take(10)
        until(lambda: len(broker.sessions) == 2 and line.publisher.broker)
        line.take(10)
        assert line.spool.return_to_disk()
        line.take(10)
        until(lambda: len(broker.sessions) == 3 and line.all_gone())
        assert set(numbers(broker.published("telemetry"))) == set(range(1, 41))
        identities: dict[tuple[str, int], set[float]] = {}
        for p in broker.published("telemetry"):
            identities.setdefault((p.fields["stream"], p.fields["seq"]), set()).add(p.fields["values"]["n"])
        assert all(len(values) == 1 for values in identities.values())
        assert set(broker.left) >= {1, 2}, "sessions ended in good order"
        assert "mqtt.network" not in line.health.counters()


def test_a_page_that_rots_while_the_agent_runs_costs_its_rows_only(tmp_path, mosquitto, monkeypatch):
    """What publish cannot read is put aside: the rest of the backlog and the present go on, the loss is explained."""
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url, drain_rate=50_000) as line:
        line.recorder._readings.extend(Reading("main", line.clock.stamp(), {"n": float(n)}) for n in range(1, 3001))
        line.recorder.commit()
        line.spool._db.checkpoint()
        path = tmp_path / "spool.db"
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2 // 4096 * 4096)
            file.write(b"\xa5" * 4096)
        line.given = 3000
        line.start()

        def live() -> bool:
            line.take()
            line.recorder._look_after_disk()
            return any(m.fields["late"] is False for m in ear.of("telemetry")) and bool(ear.of("gap"))

        until(live, "the present")

        def rest() -> bool:
            line.recorder._look_after_disk()  # as record does it all the time
            return len({m.fields["values"]["n"] for m in ear.of("telemetry") if m.fields["values"]["n"] <= 3000}) > 2900

        until(rest, "the rest")
        said = [(m.fields["from"], m.fields["to"]) for m in ear.of("gap")]
        lost = {n for first, last in said for n in range(first, last + 1)}
        heard = {int(m.fields["values"]["n"]) for m in ear.of("telemetry")}
        assert 0 < len(lost) < 100
        assert set(range(1, 3001)) - heard <= lost
        until(lambda: [fault.source for fault in line.health.faults()] == ["spool.quarantine"])


def test_a_database_that_cannot_be_read_is_said_and_tried_less_and_less(tmp_path, mosquitto, monkeypatch):
    """No descriptor left, most likely: a fault while it lasts, no storm of connections, and then all arrives."""
    monkeypatch.setattr(publish_module, "Backoff", Backoff)
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url) as line:
        line.take(5)
        reader, tries = line.recorder.reader, []

        def refuse():
            tries.append(line.clock.mono_ns())
            if len(tries) < 3:
                raise SpoolError("unable to open database file")
            return reader()

        monkeypatch.setattr(line.recorder, "reader", refuse)
        line.start()
        until(lambda: [fault.source for fault in line.health.faults()] == ["publish.spool"])
        until(lambda: len(ear.of("telemetry")) == 5)
        assert (tries[2] - tries[1]) > 1.5 * (tries[1] - tries[0])
        until(lambda: line.health.faults() == [])


def test_rows_that_cannot_be_read_cost_no_connection(tmp_path, mosquitto, monkeypatch):
    """While the disk refuses the backlog, the present arrives over one and the same session; then the rest comes."""
    failing = threading.Event()
    failing.set()
    rows = reader_module.Reader.rows

    def refuse(self, *arguments, **more):
        if failing.is_set():
            raise SpoolError("disk I/O error")
        return rows(self, *arguments, **more)

    monkeypatch.setattr(reader_module.Reader, "rows", refuse)
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url) as line:
        line.take(5)
        line.start().connected()
        until(lambda: [fault.source for fault in line.health.faults()] == ["publish.spool"])
        line.take(5)
        until(lambda: len(ear.of("telemetry")) == 5)
        failing.clear()
        until(line.all_gone)
        until(lambda: len(ear.of("telemetry")) == 10)
        assert [(n, m.fields["late"]) for m in ear.of("telemetry") for n in numbers([m])] == [
            *((n, False) for n in range(6, 11)),
            *((n, True) for n in range(1, 6)),
        ]
        assert [m.fields["state"] for m in ear.of("agent")] == ["online"], "one birth, no will"
        assert line.health.faults() == []


def test_a_broker_too_slow_for_the_present_gets_it_as_backlog(tmp_path, monkeypatch):
    """What waits in memory is bounded: the rest stays on the disk and arrives late, once each."""
    monkeypatch.setattr(publish_module, "_LIVE_MAX", 20)
    gate = threading.Event()

    def shut(peer: Peer, publish: Publish) -> None:
        if "values" in publish.fields:
            gate.wait(10)
        peer.puback(publish.mid)

    with ScriptedBroker(shut) as broker, Line(tmp_path, broker.url, window=4) as line:
        line.start().connected()
        line.take(100)
        until(lambda: line.health.counters().get("publish.spilled"))
        gate.set()
        until(line.all_gone)
        assert sorted(numbers(broker.published("telemetry"))) == list(range(1, 101))


# --- time, receipts, commands


def test_rows_of_an_unsynced_clock_get_their_true_time_before_they_leave(tmp_path):
    """Taken before the clock was right, sent after: corrected and marked synced; values untouched."""
    with ScriptedBroker() as broker, Line(tmp_path, broker.url) as line:
        stamp = line.clock.stamp()
        wrong = stamp._replace(wall_ms=1_000_000, synced=False)
        line.recorder.reading(Reading("main", wrong, {"n": 1.0}))
        line.recorder.commit()
        line.spool._ledger._anchored = False
        line.clock._synced, line.clock._checked_ns = True, stamp.mono_ns + 10**15
        line.spool.anchor()
        line.start().connected()
        until(line.all_gone)
        (message,) = broker.published("telemetry")
        from edge_agent.clock import iso

        assert message.fields["clock"] == "synced"
        assert abs(_ms(message.fields["at"]) - _ms(iso(stamp.wall_ms))) < 1000, "not in 1970"


def _ms(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp() * 1000


def test_with_a_receipt_topic_rows_wait_for_the_collector(tmp_path, mosquitto):
    """PUBACK is not enough then: rows leave when the collector says so, and only up to where it says."""
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url, receipt_topic="plant/receipts") as line:
        line.start().connected()
        line.take(10)
        until(lambda: len(ear.of("telemetry")) == 10)
        for nonsense in (b"", b"{", b"[]", b'{"stream":1}', b'{"stream":"x","upto":"y"}', b'{"upto":99}'):
            ear.publish("plant/receipts", nonsense)
        ear.publish("plant/receipts", json.dumps({"stream": "another", "upto": 99}).encode())
        ear.publish("plant/receipts", json.dumps({"stream": line.spool.stream, "upto": 6}).encode())
        until(lambda: [row.seq for row in line.left()] == [7, 8, 9, 10])
        ear.publish("plant/receipts", json.dumps({"stream": line.spool.stream, "upto": 10}).encode())
        until(line.all_gone)
        assert line.health.counters()["publish.bad_receipt"] == 6


def test_a_retained_command_is_an_order_from_the_past(tmp_path, mosquitto):
    """What lies retained under command/ at connect is counted and not carried out; a fresh one is answered."""
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url) as line:
        ear.publish(f"{ROOT}/command/acknowledge", b'{"id":"old"}', retain=True)
        line.start().connected()
        until(lambda: line.health.counters().get("command.retained_ignored"))
        ear.publish(f"{ROOT}/command/status", b'{"id":"new"}')
        until(lambda: ear.of("reply"))
        assert line.commands == [("status", b'{"id":"new"}')]
        assert ear.of("reply")[0].topic == f"{ROOT}/reply/status"


def test_a_huge_command_never_reaches_us(tmp_path, mosquitto):
    """We tell the broker what we accept; a megabyte of command is not delivered, and the session lives on."""
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url) as line:
        line.start().connected()
        ear.publish(f"{ROOT}/command/status", b"x" * 1_000_000)
        ear.publish(f"{ROOT}/command/status", b"small")
        until(lambda: line.commands)
        assert line.commands == [("status", b"small")]
        assert line.publisher.broker


def test_no_row_is_sent_twice_in_one_session(tmp_path, mosquitto):
    """However commits and the start of a session interleave, within a session each row is sent once."""
    with Ear(mosquitto.port) as ear, Line(tmp_path, mosquitto.url) as line:
        feeder_stop = threading.Event()
        line.start()
        while not line.publisher.broker:
            line.take(1)
        line.take(50)
        feeder_stop.set()
        until(line.all_gone)
        seqs = [m.fields["seq"] for m in ear.of("telemetry")]
        assert sorted(seqs) == list(range(1, line.given + 1))


def test_only_rows_from_the_floor_on_are_live(tmp_path):
    """What was committed before the session began is backlog, and must not be offered as live too."""
    with ScriptedBroker() as broker, Line(tmp_path, broker.url) as line:
        line.spool.append([Row(TELEMETRY, "t", line.clock.stamp(), '"n":1')] * 5)
        reader = line.spool.reader()
        rows = reader.rows(0, 99, 99, alarms=False)
        reader.close()
        line.publisher.offer(rows, line.spool.generation)
        assert not line.publisher._live, "not connected: all is backlog"
        line.publisher._floor, line.publisher._generation = 3, line.spool.generation
        line.publisher.offer(rows, line.spool.generation + 1)
        assert not line.publisher._live, "rows of another database"
        line.publisher.offer(rows, line.spool.generation)
        assert [row.id for row in line.publisher._live] == [3, 4, 5]


def test_unconfirmed_at_the_end_the_last_will_speaks(tmp_path):
    """A broker that does not confirm our goodbye is left without a word, so that it publishes the last will."""

    def deaf_at_the_end(peer: Peer, publish: Publish) -> None:
        if publish.fields.get("state") != "offline":
            peer.puback(publish.mid)

    with ScriptedBroker(deaf_at_the_end) as broker, Line(tmp_path, broker.url) as line:
        line.start().connected()
        line.end()
        assert broker.left == [0], "only the probe said goodbye"


def test_the_window_of_a_session_is_the_smaller_one(tmp_path):
    """The configured window holds where the broker would allow more."""

    def only_words(peer: Peer, publish: Publish) -> None:
        if "state" in publish.fields:
            peer.puback(publish.mid)

    with ScriptedBroker(only_words) as broker, Line(tmp_path, broker.url, window=7) as line:
        line.take(50)
        line.start().connected()
        line.take(50)
        until(lambda: len(broker.published("telemetry")) == 7)
        time.sleep(0.1)
        assert len(broker.published("telemetry")) == 7


def test_mqtt_error_says_what_to_do():
    """Every reason why there is no session comes with a hint or speaks for itself."""
    from edge_agent.broker import Why

    assert all(MqttError(kind, "x").hint for kind in Why if kind not in {Why.VERSION, Why.REFUSED})
