"""One session with one broker: who it is, what it may, and why it ended, said so that a person can act."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent import mqtt
from edge_agent.broker import Broker, Credentials, MqttError, Why
from edge_agent.clock import ManualClock, SystemClock
from edge_agent.mqtt import Ack, Message, Session
from tests.brokers import Ear, Mosquitto, Relay, ScriptedBroker, free_port, until

WILL = ("edge/a/b/agent", b'{"state":"offline"}')


class Authority:
    """A certificate authority with what it signed, in files.

    As plants make them: without key identifiers and key usage, which Python 3.13 would ask for by itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Plant CA")])
        self.certificate = self._sign("Plant CA", self.key.public_key(), [], 3650, ca=True)
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, name, public, names, days, *, ca=False, starts_days=-2):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days=min(starts_days, days - 1)))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name: str, *, days: int = 30, starts_days: int = -2) -> tuple[Path, Path]:
        """Certificate and key files for a host, an address or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names = [x509.IPAddress(ipaddress.ip_address(name))]
        except ValueError:
            names = [x509.DNSName(name)]
        certificate = self._sign(name, key.public_key(), names, days, starts_days=starts_days)
        stem = f"{name}-{days}"
        cert_file, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        key_file.chmod(0o644)  # mosquitto drops its privileges
        return cert_file, key_file


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    return Authority(folder)


def tls_broker(folder: Path, authority: Authority, files: tuple[Path, Path], *more: str) -> Mosquitto:
    cert_file, key_file = files
    listener = (
        f"user root\nlistener PORT 127.0.0.1\nallow_anonymous true\ncafile {authority.ca_file}\n"
        f"certfile {cert_file}\nkeyfile {key_file}"
    )
    return Mosquitto(folder, *more, listener=listener)


def opened(url: str, clock=None, **credentials) -> Session:
    return mqtt.connect(Broker.parse(url), Credentials(**credentials), "test", clock or SystemClock(), will=WILL)


def why(url: str, clock=None, **credentials) -> MqttError:
    with pytest.raises(MqttError) as caught:
        opened(url, clock, **credentials).close()
    return caught.value


def confirmed(session: Session, mid: int) -> bool:
    found: list[int] = []

    def look() -> bool:
        found.extend(event.mid for event in session.step(0.1) if isinstance(event, Ack) and event.code < 0x80)
        return mid in found

    until(look)
    return True


# --- TLS


def test_a_certificate_of_our_authority_is_trusted(tmp_path, authority):
    """With ca_file and the right name in the certificate, rows go over TLS and are confirmed."""
    with tls_broker(tmp_path, authority, authority.issue("127.0.0.1")) as broker:
        session = opened(f"mqtts://127.0.0.1:{broker.port}", ca_file=authority.ca_file)
        assert confirmed(session, session.publish("edge/a/b/telemetry/x", b"x" * 100_000))
        session.close()


def test_what_python_asks_for_besides_is_not_asked_of_a_plant(tmp_path, authority, monkeypatch):
    """Where Python is strict by itself (3.13), certificates without key identifiers are trusted; other names not."""
    ordinary = ssl.create_default_context

    def strict(*arguments, **more):
        context = ordinary(*arguments, **more)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    with tls_broker(tmp_path, authority, authority.issue("127.0.0.1")) as broker:
        opened(f"mqtts://127.0.0.1:{broker.port}", ca_file=authority.ca_file).close()
        assert why(f"mqtts://localhost:{broker.port}", ca_file=authority.ca_file).kind == Why.TLS


@pytest.mark.parametrize(
    ("name", "starts_days", "days", "synced", "kind"),
    [
        ("another-host", -2, 30, True, Why.TLS),
        ("another-host", -2, 30, False, Why.TLS),
        ("127.0.0.1", -2, -1, True, Why.TLS),
        ("127.0.0.1", -2, -1, False, Why.CLOCK),
        ("127.0.0.1", 20, 30, True, Why.TLS),
        ("127.0.0.1", 20, 30, False, Why.CLOCK),  # as for a clock that began in 1970
    ],
)
def test_a_bad_certificate_and_a_clock_that_is_not_set_are_told_apart(
    tmp_path, authority, name, starts_days, days, synced, kind
):
    """Wrong host is TLS; expired or not yet valid too, unless our own clock is not set; never is it let pass."""
    with tls_broker(tmp_path, authority, authority.issue(name, days=days, starts_days=starts_days)) as broker:
        clock = ManualClock(synced=synced)
        error = why(f"mqtts://127.0.0.1:{broker.port}", clock, ca_file=authority.ca_file)
        assert error.kind == kind
        assert ("clock" in error.hint) == (kind == Why.CLOCK)


def test_an_unknown_authority_is_refused(tmp_path, authority):
    """Without ca_file the system's authorities count, and ours is not among them."""
    with tls_broker(tmp_path, authority, authority.issue("127.0.0.1")) as broker:
        assert why(f"mqtts://127.0.0.1:{broker.port}").kind == Why.TLS


def test_client_certificates(tmp_path, authority):
    """A broker that wants a certificate takes ours, and without one the hint speaks of certificates."""
    files = authority.issue("127.0.0.1")
    with tls_broker(tmp_path, authority, files, "require_certificate true") as broker:
        url = f"mqtts://127.0.0.1:{broker.port}"
        cert_file, key_file = authority.issue("press-3")
        opened(url, ca_file=authority.ca_file, cert_file=cert_file, key_file=key_file).close()
        error = why(url, ca_file=authority.ca_file)
        assert error.kind == Why.TLS
        assert "cert_file" in error.hint


def test_certificate_files_that_are_not_there(tmp_path, authority):
    """A missing or garbled certificate file is said before anything is sent."""
    missing = why("mqtts://127.0.0.1:1", ca_file=tmp_path / "nowhere.pem")
    assert missing.kind == Why.TLS
    (tmp_path / "garbled.pem").write_text("nonsense")
    assert why("mqtts://127.0.0.1:1", ca_file=tmp_path / "garbled.pem").kind == Why.TLS


def test_a_key_that_wants_a_pass_phrase_is_refused(tmp_path, authority):
    """Nobody is there to type one: it is said, and not waited for."""
    cert_file, key_file = authority.issue("locked")
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    error = why("mqtts://127.0.0.1:1", ca_file=authority.ca_file, cert_file=cert_file, key_file=key_file)
    assert (error.kind, "certificate files" in str(error)) == (Why.TLS, True)


def test_plain_talk_at_a_tls_port_and_the_reverse(tmp_path, authority):
    """mqtt:// to a TLS port and mqtts:// to a plain one end with a reason, not with a hang."""
    with tls_broker(tmp_path, authority, authority.issue("127.0.0.1")) as secret, Mosquitto(tmp_path) as plain:
        assert why(f"mqtt://127.0.0.1:{secret.port}", connect_timeout="2s").kind in {Why.NETWORK, Why.SILENT}
        assert why(f"mqtts://127.0.0.1:{plain.port}", connect_timeout="2s").kind in {Why.TLS, Why.NETWORK}


# --- passwords


def test_passwords_come_from_a_file(tmp_path):
    """The right password opens the session; a wrong one is `auth`; a missing file says which one."""
    import subprocess

    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "press-3", "right"], check=True)
    passwords.chmod(0o644)
    listener = f"user root\nlistener PORT 127.0.0.1\nallow_anonymous false\npassword_file {passwords}"
    with Mosquitto(tmp_path, listener=listener) as broker:
        right, wrong = tmp_path / "right", tmp_path / "wrong"
        right.write_text("right\n")
        wrong.write_text("wrong\n")
        opened(broker.url, username="press-3", password_file=right).close()
        assert why(broker.url, username="press-3", password_file=wrong).kind == Why.AUTH
        assert why(broker.url).kind == Why.AUTH
        missing = why(broker.url, username="press-3", password_file=tmp_path / "none")
        assert (missing.kind, "none" in str(missing)) == (Why.AUTH, True)
        wrong.write_bytes("größer".encode("latin-1"))
        garbled = why(broker.url, username="press-3", password_file=wrong)
        assert (garbled.kind, "wrong" in str(garbled)) == (Why.AUTH, True)


# --- the session


def test_what_the_broker_allows_is_known_after_open():
    """Receive Maximum, Maximum Packet Size and Retain Available of the CONNACK are respected."""
    allows = b"\x21\x00\x05" + b"\x27\x00\x00\x10\x00" + b"\x25\x00"
    with ScriptedBroker(on_connect=lambda peer: peer.connack(properties=allows)) as broker:
        session = opened(broker.url)
        assert (session.receive_maximum, session.maximum_packet_bytes, session.room) == (5, 4096, 5)
        session.publish("edge/a/b/agent", b"{}", retain=True)
        assert session.room == 4
        until(lambda: session.step(0.05) is not None and session.room == 5)
        assert not broker.published()[0].retain, "a broker without retained messages is not sent any"
        session.close()


def test_a_broker_without_qos_1_is_refused():
    """Nothing would ever be confirmed there, so the session never begins."""
    with ScriptedBroker(on_connect=lambda peer: peer.connack(properties=b"\x24\x00")) as broker:
        error = why(broker.url)
        assert (error.kind, "QoS 0" in str(error)) == (Why.REFUSED, True)


def test_nobody_there_and_no_such_name():
    """Refused connections and unknown names are `network`, with the address in the message."""
    port = free_port()
    error = why(f"mqtt://127.0.0.1:{port}")
    assert (error.kind, str(port) in str(error)) == (Why.NETWORK, True)
    assert why("mqtt://no-such-host.invalid:1883").kind == Why.NETWORK


def test_a_dead_cable_is_noticed(tmp_path):
    """When bytes stop passing without a word, the keepalive ends the session."""
    with Mosquitto(tmp_path) as broker, Relay(broker.port) as relay:
        session = opened(relay.url, keepalive="5s")
        session._client._keepalive = 1  # the shortest that a config may say is longer than a test should take
        relay.go_dead()
        with pytest.raises(MqttError) as caught:
            until(lambda: session.step(0.2) is None)
        assert caught.value.kind == Why.NETWORK
        session.close()


def test_closed_in_good_order_there_is_no_last_will_abandoned_there_is(tmp_path):
    """close() takes the will back; abandon() leaves it to the broker."""
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear:
        opened(broker.url).close()
        session = opened(broker.url)
        assert ear.heard == []
        session.abandon()
        session.close()
        until(lambda: ear.heard)
        assert [message.fields for message in ear.heard] == [{"state": "offline"}]


def test_sockets_do_not_wait_for_the_garbage_collector(tmp_path):
    """Sessions that ended leave no open file behind."""
    import gc

    with Mosquitto(tmp_path) as broker:
        opened(broker.url).close()
        gc.collect()
        gc.disable()
        try:
            before = len(list(Path("/proc/self/fd").iterdir()))
            for _ in range(20):
                opened(broker.url).close()
            assert len(list(Path("/proc/self/fd").iterdir())) <= before
        finally:
            gc.enable()


def test_messages_carry_what_they_came_with(tmp_path):
    """Topic, payload, retained or not; a message for us is confirmed to the broker by itself."""
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear:
        session = opened(broker.url)
        session.subscribe("edge/a/b/command/+")
        ear.publish("edge/a/b/command/status", b"\xff\x00 not text")
        found: list[Message] = []
        until(lambda: found.extend(e for e in session.step(0.1) if isinstance(e, Message)) or found)
        assert (found[0].topic, found[0].payload, found[0].retain) == (
            "edge/a/b/command/status",
            b"\xff\x00 not text",
            False,
        )
        session.close()


def test_the_watched_descriptor_wakes_a_step(tmp_path):
    """A step that waits for the network returns when the eventfd is written, and takes it back to zero."""
    import os
    import threading

    with Mosquitto(tmp_path) as broker:
        session = opened(broker.url)
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        session.watch(fd)
        threading.Timer(0.05, os.eventfd_write, (fd, 1)).start()
        assert session.step(30) == []
        with pytest.raises(BlockingIOError):
            os.eventfd_read(fd)
        session.close()
        os.close(fd)


# --- addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker-a", ("broker-a", 1883, False)),
        ("mqtts://broker-a", ("broker-a", 8883, True)),
        ("mqtts://[::1]:9", ("::1", 9, True)),
    ],
)
def test_a_broker_s_address(url, expected):
    """The scheme chooses TLS and the port, unless a port is named."""
    broker = Broker.parse(url)
    assert (broker.host, broker.port, broker.tls) == expected


@pytest.mark.parametrize(
    "url", ["broker-a", "http://broker-a", "mqtt://", "mqtt://user:secret@broker-a", "mqtt://a:99999"]
)
def test_what_is_no_broker_s_address(url):
    """A wrong scheme, no host, an impossible port, a password in the address: refused, and the secret not repeated."""
    with pytest.raises(ValueError) as caught:
        Broker.parse(url)
    assert "secret" not in str(caught.value)
