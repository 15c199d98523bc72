"""One connection to one broker, driven by its owner's thread. The only file that knows paho-mqtt.

paho's own thread, queue and reconnecting are not used: the spool is the queue, and a session that
ended is thrown away. MQTT 5 is spoken, 3.1.1 where the broker knows no better.
"""

from __future__ import annotations

import contextlib
import os
import select
import ssl
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.broker import Broker, Credentials, MqttError, Why, read_secret
from edge_agent.clock import NS, Clock

LARGEST_PACKET: Final = 268_435_455  # that MQTT can express
ACCEPT_BYTES: Final = 128 << 10  # nobody has to send an agent more than this

# What paho raises on bytes that are no MQTT.
_NONSENSE: Final = (MQTTException, struct.error, ValueError, LookupError, TypeError, AttributeError)


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


class Session:
    """A connection from CONNECT to its end. Every method from one thread."""

    def __init__(
        self, broker: Broker, credentials: Credentials, client_id: str, clock: Clock, *, legacy: bool = False
    ) -> None:
        self.broker = broker
        self.legacy = legacy
        self.receive_maximum = 65535
        self.maximum_packet_bytes = LARGEST_PACKET
        self._retains = True
        self._unconfirmed = 0
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
        client.max_inflight_messages_set(65535)  # the window is ours to keep
        client.on_connect, client.on_publish = self._on_connect, self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_disconnect, client.on_message = self._on_disconnect, self._on_message
        self._set_credentials()
        extra: dict[str, Any] = {} if self.legacy else {"clean_start": True}
        if will:
            client.will_set(will[0], will[1], qos=1, retain=True)
            if not self.legacy:
                extra["properties"] = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                extra["properties"].MaximumPacketSize = ACCEPT_BYTES
        try:
            client.connect(self.broker.host, self.broker.port, keepalive=int(self._credentials.keepalive), **extra)
        except ssl.SSLCertVerificationError as error:
            raise MqttError(
                Why.CLOCK if self._clock_is_suspect(error) else Why.TLS, f"{self.broker.url}: {error.verify_message}"
            ) from error
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise MqttError(Why.TLS, f"{self.broker.url}: {error}") from error
        except (OSError, ValueError) as error:
            raise MqttError(Why.NETWORK, f"{self.broker.url}: {error}") from error
        if client.socket() is not None:  # it may be gone again already
            self._poll.register(client.socket(), select.POLLIN)  # type: ignore[arg-type]
        deadline_ns = self._clock.mono_ns() + int(self._credentials.connect_timeout * NS)
        while not self._connected:
            self.step(0.5)
            if not self._connected and self._clock.mono_ns() > deadline_ns:
                raise MqttError(Why.SILENT, f"{self.broker.url}: connected, but no CONNACK")

    def _set_credentials(self) -> None:
        mine = self._credentials
        if mine.username is not None:
            self._client.username_pw_set(mine.username, read_secret(mine.password_file))
        if not self.broker.tls:
            return
        try:
            context = ssl.create_default_context(cafile=str(mine.ca_file) if mine.ca_file else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13 refuses plain plant CAs that 3.11 takes
            if mine.cert_file:
                context.load_cert_chain(mine.cert_file, mine.key_file, password="")  # it would ask at the terminal
        except OSError as error:  # ssl.SSLError too
            raise MqttError(Why.TLS, f"cannot use the certificate files: {error}") from error
        self._client.tls_set_context(context)

    def _clock_is_suspect(self, error: ssl.SSLCertVerificationError) -> bool:
        # 9: not yet valid; 10: expired. With an unsynced clock that says nothing about the certificate.
        return error.verify_code in {9, 10} and not self._clock.synced()

    # --- talking

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, user: Sequence[tuple[str, str]] = ()) -> int:
        """Send with QoS 1; the packet id that its Ack will carry. The caller keeps to ``room``."""
        properties = None
        if user and not self.legacy:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.UserProperty = list(user)
        retain = retain and self._retains
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if info.rc not in {paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN}:
            raise MqttError(Why.NETWORK, f"{self.broker.url}: {paho.error_string(info.rc)}")
        self._unconfirmed += 1
        return info.mid

    @property
    def room(self) -> int:
        """How many more messages the broker takes before it has confirmed some."""
        return self.receive_maximum - self._unconfirmed

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
            try:
                client.loop_read()
            except _NONSENSE as error:
                self._end(Why.REFUSED, f"does not speak MQTT properly: {error}")
            if client.want_write():
                client.loop_write()
            client.loop_misc()
        if client.socket() is None:
            # With TLS 1.3 a missing client certificate is complained about only after the handshake.
            early = self.broker.tls and not self._connected
            self._end(Why.TLS if early else Why.NETWORK, "connection lost")
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

    def abandon(self) -> None:
        """Drop the connection without a word, so that the broker publishes the last will."""
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def close(self) -> None:
        """End the session in good order, if it has not ended: no last will. Harmless when closed."""
        client = self._client
        if self._ended is None and self._connected:
            with contextlib.suppress(OSError, ValueError):
                client.disconnect()
        self.abandon()
        # paho and we hold each other; sockets should not wait for the garbage collector.
        client.on_connect = client.on_publish = client.on_subscribe = None
        client.on_disconnect = client.on_message = None

    # --- what paho calls, in our thread, within step()

    def _on_connect(self, _client: Any, _user: Any, _flags: Any, reason: Any, properties: Any) -> None:
        code = reason.value
        if code == 0:
            self._connected = True
            self.receive_maximum = getattr(properties, "ReceiveMaximum", 65535)
            self.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", LARGEST_PACKET)
            self._retains = bool(getattr(properties, "RetainAvailable", 1))
            if not getattr(properties, "MaximumQoS", 1):
                self._end(Why.REFUSED, "offers QoS 0 only, so nothing would ever be confirmed")
            return
        kind = Why.VERSION if code in {1, 0x84} else Why.AUTH if code in {4, 5, 0x86, 0x87, 0x8A, 0x8C} else Why.REFUSED
        self._end(kind, str(reason))

    def _end(self, kind: Why, why: str) -> None:
        """The first reason is the true one."""
        if self._ended is None:
            self._ended = MqttError(kind, f"{self.broker.url}: {why}")

    def _on_publish(self, _client: Any, _user: Any, mid: int, reason: Any, _properties: Any) -> None:
        self._unconfirmed -= 1
        self._events.append(Ack(mid, reason.value if reason is not None else 0))

    def _on_subscribe(self, _client: Any, _user: Any, mid: int, reasons: Any, _properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.value >= 0x80]
        if refused:
            self._end(Why.AUTH, f"subscription refused: {', '.join(refused)}")
        self._events.append(Subscribed(mid))

    def _on_message(self, _client: Any, _user: Any, message: Any) -> None:
        properties = getattr(message, "properties", None)
        user = dict(getattr(properties, "UserProperty", ()) or ())
        expiry = getattr(properties, "MessageExpiryInterval", None)
        self._events.append(Message(message.topic, message.payload, message.retain, message.dup, user, expiry))

    def _on_disconnect(self, _client: Any, _user: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if not self._connected:
            return  # the CONNACK said why, or there was none
        code = reason.value
        unsaid = code == 0x80 and not flags.is_disconnect_packet_from_server
        self._end(
            Why.TAKEN_OVER if code == 0x8E else Why.AUTH if code in {0x87, 0x8A} else Why.NETWORK,
            "connection lost" if unsaid else str(reason),
        )


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
            if error.kind != Why.VERSION:
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
