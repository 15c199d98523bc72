"""One connection to one broker, driven by its owner's thread. The only file that knows paho-mqtt.

paho's own thread, queue and reconnecting are not used: the spool is the queue, and a session that
ended is thrown away. MQTT 5 is spoken, 3.1.1 where the broker knows no better.
"""

from __future__ import annotations

import contextlib
import os
import select
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import Field

from edge_agent.clock import NS, Clock
from edge_agent.errors import EdgeAgentError
from edge_agent.settings import Duration, Section

DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}

# Why a session could not begin or ended.
NETWORK: Final = "network"
VERSION: Final = "version"
AUTH: Final = "auth"
TLS: Final = "tls"
CLOCK: Final = "clock"
TAKEN_OVER: Final = "taken-over"
SILENT: Final = "silent"
REFUSED: Final = "refused"

_HINTS = {
    AUTH: "check username, password file and the broker's access list",
    TLS: "check ca_file, and that the name in the config is the name in the broker's certificate",
    CLOCK: "this computer's clock is not set yet; it is tried again once it is",
    TAKEN_OVER: "another client uses the same client id; give each line its own",
    NETWORK: "check the address, the cable and that the broker runs",
    SILENT: "something accepts connections there but does not speak MQTT",
}


class MqttError(EdgeAgentError, ConnectionError):
    """The session is over or never began; ``kind`` says which of the reasons above."""

    retryable = True

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message, hint=_HINTS.get(kind, ""))
        self.kind = kind


class Credentials(Section):
    """How to prove who we are; secrets come from files, never from the config."""

    username: str | None = Field(default=None, description="User name for the broker.")
    password_file: Path | None = Field(default=None, description="File whose first line is the password.")
    ca_file: Path | None = Field(
        default=None, description="CA certificate that signed the broker's; default: the system's."
    )
    cert_file: Path | None = Field(default=None, description="Client certificate (PEM).")
    key_file: Path | None = Field(default=None, description="Private key of the client certificate (PEM).")
    keepalive: Duration = Field(default=15.0, ge=5, le=300, description="How often the broker hears from us at least.")
    connect_timeout: Duration = Field(default=10.0, gt=0, le=60, description="How long connecting may take.")


class Ack(NamedTuple):
    """The broker answered a publish: ``code`` < 0x80 means that it took it."""

    mid: int
    code: int


class Subscribed(NamedTuple):
    """The broker took a subscription: from now on nothing of it is missed."""

    mid: int


class Message(NamedTuple):
    """Something arrived. ``user``: MQTT 5 user properties."""

    topic: str
    payload: bytes
    retain: bool
    duplicate: bool
    user: dict[str, str]
    expiry_s: int | None


Event = Ack | Message | Subscribed


class Broker(NamedTuple):
    """Where a broker is: from ``mqtt://host:port`` or ``mqtts://host:port``."""

    url: str
    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Broker:
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is not a broker; write mqtts://host:8883 or mqtt://host:1883")
        if parts.username or parts.password:
            raise ValueError(f"{parts.hostname}: no user or password in the address; use username and password_file")
        return cls(url, parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme], parts.scheme == "mqtts")


class Session:
    """A connection from CONNECT to its end. Every method from one thread."""

    def __init__(
        self, broker: Broker, credentials: Credentials, client_id: str, clock: Clock, *, legacy: bool = False
    ) -> None:
        self.broker = broker
        self.legacy = legacy
        self.receive_maximum = 65535
        self.maximum_packet_bytes = 268_435_455
        self._credentials = credentials
        self._clock = clock
        self._events: list[Event] = []
        self._ended: MqttError | None = None
        self._connected = False
        self._poll = select.poll()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=True if legacy else None,
            protocol=paho.MQTTv311 if legacy else paho.MQTTv5,
            reconnect_on_failure=False,
        )

    def open(self, will: tuple[str, bytes] | None = None) -> None:
        """Connect and wait for CONNACK; raises MqttError. ``will``: retained topic and payload, QoS 1."""
        client = self._client
        client.connect_timeout = self._credentials.connect_timeout
        client.max_inflight_messages_set(65535)
        client.on_connect, client.on_publish = self._on_connect, self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_disconnect, client.on_message = self._on_disconnect, self._on_message
        if will:
            client.will_set(will[0], will[1], qos=1, retain=True)
        self._set_credentials()
        extra: dict[str, Any] = {} if self.legacy else {"clean_start": True}
        try:
            client.connect(self.broker.host, self.broker.port, keepalive=int(self._credentials.keepalive), **extra)
        except ssl.SSLCertVerificationError as error:
            raise MqttError(
                CLOCK if self._clock_is_suspect(error) else TLS, f"{self.broker.url}: {error.verify_message}"
            ) from error
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise MqttError(TLS, f"{self.broker.url}: {error}") from error
        except (OSError, ValueError) as error:
            raise MqttError(NETWORK, f"{self.broker.url}: {error}") from error
        sock: Any = client.socket()
        self._poll.register(sock, select.POLLIN)
        deadline_ns = self._clock.mono_ns() + int(self._credentials.connect_timeout * NS)
        while not self._connected:
            self.step(0.5)
            if self._clock.mono_ns() > deadline_ns:
                raise MqttError(SILENT, f"{self.broker.url}: connected, but no CONNACK")

    def _set_credentials(self) -> None:
        mine = self._credentials
        if mine.username is not None:
            self._client.username_pw_set(mine.username, read_secret(mine.password_file))
        if not self.broker.tls:
            return
        try:
            context = ssl.create_default_context(cafile=str(mine.ca_file) if mine.ca_file else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if mine.cert_file:
                context.load_cert_chain(mine.cert_file, mine.key_file)
        except OSError as error:  # ssl.SSLError is one too
            raise MqttError(TLS, f"cannot use the certificate files: {error}") from error
        self._client.tls_set_context(context)

    def _clock_is_suspect(self, error: ssl.SSLCertVerificationError) -> bool:
        # 9: not yet valid; 10: expired. With an unsynced clock that says nothing about the certificate.
        return error.verify_code in {9, 10} and not self._clock.synced()

    # --- talking

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, user: Sequence[tuple[str, str]] = ()) -> int:
        """Send with QoS 1; the packet id that its Ack will carry."""
        properties = None
        if user and not self.legacy:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.UserProperty = list(user)
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if info.rc not in {paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN}:
            raise MqttError(NETWORK, f"{self.broker.url}: {paho.error_string(info.rc)}")
        return info.mid

    def subscribe(self, topic: str) -> None:
        """Ask for a topic; a Subscribed event says when it holds."""
        self._client.subscribe(topic, qos=1)

    def watch(self, fd: int) -> None:
        """Let ``step`` also return when ``fd`` (an eventfd) is written."""
        self._wake_fd = fd
        self._poll.register(fd, select.POLLIN)

    def step(self, timeout_s: float) -> list[Event]:
        """Wait for the network or the watched fd, handle it; what happened. Raises MqttError at the end."""
        client = self._client
        sock: Any = client.socket()
        if sock is not None:
            if not (self.broker.tls and getattr(sock, "pending", int)()):
                self._await(sock, timeout_s)
            client.loop_read()
            if client.want_write():
                client.loop_write()
            client.loop_misc()
        if self._ended is None and client.socket() is None:
            self._ended = MqttError(NETWORK, f"{self.broker.url}: connection lost")
        if self._ended is not None:
            raise self._ended
        events, self._events = self._events, []
        return events

    _wake_fd = -1

    def _await(self, sock: Any, timeout_s: float) -> None:
        wanted = select.POLLIN | (select.POLLOUT if self._client.want_write() else 0)
        self._poll.modify(sock, wanted)
        for fd, _ in self._poll.poll(timeout_s * 1000):
            if fd == self._wake_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)

    def close(self, *, leave_will: bool = False) -> None:
        """End the session; ``leave_will``: let the broker publish the last will."""
        if leave_will or self._ended is not None:
            sock = self._client.socket()
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.close()
            return
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()

    # --- what paho calls, in our thread, within step()

    def _on_connect(self, _client: Any, _user: Any, _flags: Any, reason: Any, properties: Any) -> None:
        code = reason.value
        if code == 0:
            self._connected = True
            self.receive_maximum = getattr(properties, "ReceiveMaximum", 65535) if properties else 65535
            self.maximum_packet_bytes = (
                getattr(properties, "MaximumPacketSize", 268_435_455) if properties else 268_435_455
            )
            return
        kind = VERSION if code in {1, 0x84} else AUTH if code in {4, 5, 0x86, 0x87, 0x8A, 0x8C} else REFUSED
        self._ended = MqttError(kind, f"{self.broker.url}: {reason}")

    def _on_publish(self, _client: Any, _user: Any, mid: int, reason: Any, _properties: Any) -> None:
        self._events.append(Ack(mid, reason.value if reason is not None else 0))

    def _on_subscribe(self, _client: Any, _user: Any, mid: int, reasons: Any, _properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.value >= 0x80]
        if refused:
            self._ended = MqttError(AUTH, f"{self.broker.url}: subscription refused: {', '.join(refused)}")
        self._events.append(Subscribed(mid))

    def _on_message(self, _client: Any, _user: Any, message: Any) -> None:
        properties = getattr(message, "properties", None)
        user = dict(getattr(properties, "UserProperty", ()) or ())
        expiry = getattr(properties, "MessageExpiryInterval", None)
        self._events.append(Message(message.topic, message.payload, message.retain, message.dup, user, expiry))

    def _on_disconnect(self, _client: Any, _user: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._ended is None:
            kind = TAKEN_OVER if reason.value == 0x8E else NETWORK
            self._ended = MqttError(kind, f"{self.broker.url}: {reason}")


def connect(
    broker: Broker,
    credentials: Credentials,
    client_id: str,
    clock: Clock,
    *,
    will: tuple[str, bytes] | None = None,
    legacy: bool | None = None,
) -> Session:
    """An open session; raises MqttError. ``legacy``: whether the broker speaks 3.1.1 only; None: find out.

    Finding out takes a session without a will: a broker that knows no better (amqtt) stumbles over the
    will of MQTT 5 and never comes to say that it does not know the version.
    """
    if legacy is None:
        session = Session(broker, credentials, client_id, clock)
        try:
            session.open()
        except MqttError as error:
            session.close()
            if error.kind != VERSION:
                raise
            legacy = True
        else:
            if will is None:
                return session
            session.close()
            legacy = False
    session = Session(broker, credentials, client_id, clock, legacy=legacy)
    try:
        session.open(will)
    except MqttError:
        session.close()
        raise
    return session


def read_secret(path: Path | None) -> str | None:
    """First line of a secret file; raises MqttError when it cannot be read."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError) as error:
        raise MqttError(AUTH, f"cannot read the password file {path}: {error}") from error
