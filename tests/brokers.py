"""Far ends for MQTT: mosquitto on a free port, a broker that follows a script, and an ear of its own."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.patience import SLOWNESS

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(true: Callable[[], object], what: str = "", seconds: float = 60.0) -> None:
    """Wait for a condition; the limit only ends a test that has failed."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


class Mosquitto:
    """The real one, in a process of its own, always at the same port."""

    def __init__(self, folder: Path, *lines: str, listener: str = "") -> None:
        self.port = free_port()
        self.config = folder / f"mosquitto-{self.port}.conf"
        listen = listener or f"listener {self.port} 127.0.0.1\nallow_anonymous true"
        self.config.write_text("\n".join((listen.replace("PORT", str(self.port)), *lines, "")))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> Self:
        log = self.config.with_suffix(".log").open("ab")
        self._process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", self.config], stdout=log, stderr=log)
        log.close()
        until(self._answers, "mosquitto listens")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.config.with_suffix(".log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass
class Heard:
    topic: str
    fields: dict
    retain: bool
    payload: bytes


class Ear:
    """Subscribes with paho alone, with nothing of ours in between; comes back by itself when the broker does."""

    def __init__(self, port: int, topic: str = "edge/#", **connect) -> None:
        self.heard: list[Heard] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(0.02, 0.05)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_disconnect = lambda *_: self._subscribed.clear()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port, **connect)
        self._client.loop_start()
        self.wait()

    def wait(self) -> None:
        assert self._subscribed.wait(10 * SLOWNESS)

    def _on_message(self, _client: object, _user: object, message: paho.MQTTMessage) -> None:
        try:
            fields = json.loads(message.payload)
        except ValueError:
            fields = {}
        self.heard.append(Heard(message.topic, fields, message.retain, message.payload))

    def of(self, kind: str) -> list[Heard]:
        return [heard for heard in list(self.heard) if heard.topic.split("/")[3] == kind]

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5 * SLOWNESS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Relay:
    """A cable between the agent and its broker: it can be cut, it can go dead without a word, and it may be slow."""

    def __init__(self, port: int, *, bytes_per_s: float = float("inf"), delay_s: float = 0.0) -> None:
        self._bytes_per_s = bytes_per_s
        self._delay_s = delay_s
        self._target = ("127.0.0.1", port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._open = threading.Event()
        self._open.set()
        self._alive = threading.Event()  # cleared: everything is swallowed
        self._alive.set()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Every connection is reset, and new ones at once after they began."""
        self._open.clear()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._open.set()
        self._alive.set()

    def go_dead(self) -> None:
        """Connections stay, bytes do not pass: a pulled cable behind a switch."""
        self._alive.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                if not self._open.is_set():
                    near.close()
                    continue
                far = socket.create_connection(self._target, 5)
                self._ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        cable: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=self._arrive, args=(cable, target), daemon=True).start()
        free_at = 0.0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                free_at = max(free_at, time.monotonic()) + len(data) / self._bytes_per_s
                cable.put((free_at + self._delay_s, data))
        cable.put((0.0, b""))

    def _arrive(self, cable: queue.SimpleQueue[tuple[float, bytes]], target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (found := cable.get())[1]:
                time.sleep(max(0.0, found[0] - time.monotonic()))
                if self._alive.is_set():
                    target.sendall(found[1])
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()


# --- a broker that does as it is told


@dataclass
class Publish:
    """A PUBLISH as it came over the wire."""

    topic: str
    payload: bytes
    mid: int
    retain: bool
    duplicate: bool

    @property
    def fields(self) -> dict:
        return json.loads(self.payload)


@dataclass
class Peer:
    """One connection to the scripted broker. ``number`` counts those that carry a will, from 1; probes are 0."""

    socket: socket.socket
    number: int = 0
    version: int = 5
    will: bool = False
    published: list[Publish] = field(default_factory=list)

    def send(self, kind: int, body: bytes = b"") -> None:
        with contextlib.suppress(OSError):
            self.socket.sendall(bytes([kind << 4, len(body)]) + body)

    def connack(self, code: int = 0, properties: bytes = b"") -> None:
        tail = bytes([len(properties)]) + properties if self.version == 5 else b""
        self.send(CONNACK, bytes([0, code]) + tail)

    def puback(self, mid: int, code: int = 0) -> None:
        self.send(PUBACK, mid.to_bytes(2, "big") + (bytes([code, 0]) if code else b""))

    def disconnect(self, code: int) -> None:
        self.send(DISCONNECT, bytes([code, 0]))
        self.hang_up()

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


def willing(peer: Peer, publish: Publish) -> None:
    """Confirm everything."""
    peer.puback(publish.mid)


class ScriptedBroker:
    """Speaks just enough MQTT; what it answers is the test's."""

    def __init__(
        self,
        on_publish: Callable[[Peer, Publish], None] = willing,
        on_connect: Callable[[Peer], None] = Peer.connack,
        on_subscribe: Callable[[Peer, int], None] | None = None,
    ) -> None:
        self.on_publish = on_publish
        self.on_connect = on_connect
        self.on_subscribe = on_subscribe or (lambda peer, mid: peer.send(SUBACK, mid.to_bytes(2, "big") + b"\0\1"))
        self.peers: list[Peer] = []
        self.left: list[int] = []  # numbers of the peers that said DISCONNECT
        self._server = socket.create_server(("127.0.0.1", 0))
        self._numbers = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"

    def published(self, kind: str = "") -> list[Publish]:
        """Everything that came, over all connections, in order."""
        every = [publish for peer in list(self.peers) for publish in list(peer.published)]
        return [publish for publish in every if not kind or publish.topic.split("/")[3] == kind]

    @property
    def sessions(self) -> list[Peer]:
        return [peer for peer in list(self.peers) if peer.number]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for peer in self.peers:
            peer.hang_up()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                peer = Peer(client)
                self.peers.append(peer)
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: Peer) -> None:
        stream = peer.socket.makefile("rb")
        with contextlib.suppress(OSError, IndexError, ValueError), peer.socket:
            while head := stream.read(1):
                self._take(peer, head[0], stream.read(_varint(stream)))

    def _take(self, peer: Peer, head: int, body: bytes) -> None:
        match head >> 4:
            case 1:
                peer.version, peer.will = body[6], bool(body[7] & 4)
                if peer.will:
                    self._numbers += 1
                    peer.number = self._numbers
                self.on_connect(peer)
            case 3:
                publish = _publish(head, body, peer.version)
                peer.published.append(publish)
                self.on_publish(peer, publish)
            case 8:
                self.on_subscribe(peer, int.from_bytes(body[:2], "big"))
            case 12:
                peer.send(PINGRESP)
            case 14:
                self.left.append(peer.number)


def _varint(stream) -> int:
    value = shift = 0
    while True:
        (byte,) = stream.read(1)
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value


def _publish(head: int, body: bytes, version: int) -> Publish:
    length = int.from_bytes(body[:2], "big")
    topic, body = body[2 : 2 + length].decode(), body[2 + length :]
    mid, body = int.from_bytes(body[:2], "big"), body[2:]
    if version == 5:
        skip = body[0]
        assert skip < 128, "long properties are not expected here"
        body = body[1 + skip :]
    return Publish(topic, body, mid, bool(head & 1), bool(head & 8))
