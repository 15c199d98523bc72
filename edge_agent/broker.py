"""Where a broker is, who we are to it, and why it may not want us: nothing here touches the network."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from edge_agent.errors import EdgeAgentError
from edge_agent.settings import Duration, Section

DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class Why(StrEnum):
    """Why a session could not begin, or ended."""

    NETWORK = "network"
    VERSION = "version"
    AUTH = "auth"
    TLS = "tls"
    CLOCK = "clock"
    TAKEN_OVER = "taken-over"
    SILENT = "silent"
    REFUSED = "refused"


_HINTS: Final = {
    Why.AUTH: "check username, password file and the broker's access list",
    Why.TLS: "check ca_file, that the name here is the one in the broker's certificate, and cert_file if it wants one",
    Why.CLOCK: "this computer's clock is not set yet; it is tried again once it is",
    Why.TAKEN_OVER: "another client uses the same client id; give each line its own",
    Why.NETWORK: "check the address, the cable and that the broker runs",
    Why.SILENT: "something accepts connections there but does not speak MQTT",
}


class MqttError(EdgeAgentError, ConnectionError):
    """The session is over or never began."""

    retryable = True

    def __init__(self, kind: Why, message: str) -> None:
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


def read_secret(path: Path | None) -> str | None:
    """First line of a secret file; raises MqttError when it cannot be read."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise MqttError(Why.AUTH, f"cannot read the password file {path}: {error}") from error
