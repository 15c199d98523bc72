"""Brokers: name, port, TLS and CONNACK, each on its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from edge_agent.broker import Broker, MqttError, MqttSettings
from edge_agent.clock import NS
from edge_agent.inspection.finding import FAIL, OK, WARN, Finding, Scene, Step, failed
from edge_agent.mqtt import connect


def steps(scene: Scene) -> Iterator[Step]:
    """One per broker."""
    if scene.config.mqtt is None:
        yield Step("broker", lambda: iter([Finding(WARN, "broker", "none is configured: everything stays here")]))
        return
    for url in scene.config.mqtt.brokers:
        yield Step(f"broker {url}: shaking hands", partial(look, scene, scene.config.mqtt, url))


def look(scene: Scene, settings: MqttSettings, url: str) -> Iterator[Finding]:
    """One broker. The client id is not that of the daemon, whose session would end otherwise."""
    what = f"broker {url}"
    began_ns = scene.clock.mono_ns()
    try:
        session = connect(Broker.parse(url), settings, f"edge-agent-check-{os.getpid()}", scene.clock)
    except MqttError as error:
        found = failed(what, error)
        yield Finding(FAIL, what, found.detail.removeprefix(f"{url}: "), found.hint)
        return
    took_ms = (scene.clock.mono_ns() - began_ns) / NS * 1000
    version = "3.1.1" if session.legacy else "5"
    session.close()
    yield Finding(OK, what, f"{'TLS, ' if session.broker.tls else ''}MQTT {version}, accepted in {took_ms:.0f} ms")
    if not session.broker.tls and session.broker.host not in {"localhost", "127.0.0.1", "::1"}:
        yield Finding(WARN, what, "not encrypted", "use mqtts:// with a ca_file")
