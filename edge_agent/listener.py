"""The integrator's side: a subscriber that understands every message of the dialect and keeps count."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from typing import Any

from edge_agent import mqtt
from edge_agent.broker import Broker, Credentials, MqttError
from edge_agent.clock import Clock
from edge_agent.completeness import Completeness
from edge_agent.mqtt import Message, Subscribed

Show = Callable[[str, dict[str, Any], int], None]
"""``show(topic, fields, size_bytes)`` for every message; a picture's fields are its properties."""


class Listener:
    """Subscribes, reconnects for ever, and counts."""

    def __init__(
        self, broker: Broker, credentials: Credentials, topic: str, clock: Clock, show: Show | None = None
    ) -> None:
        self.completeness = Completeness()
        self.strange = 0  # messages that are not of the dialect
        self.trouble: MqttError | None = None  # why there is no connection now
        self._broker = broker
        self._credentials = credentials
        self._topic = topic
        self._clock = clock
        self._show = show
        self._client_id = f"edge-agent-listen-{secrets.token_hex(4)}"
        self.connected = threading.Event()

    def body(self, stop: threading.Event, progress: Callable[[], None] = lambda: None) -> None:
        """Listen until stop; a broker that goes away is waited for."""
        while not stop.is_set():
            try:
                self.listen(stop, progress)
            except MqttError as error:
                self.connected.clear()
                self.trouble = error
                self._clock.wait(stop, 0.3)

    def listen(self, stop: threading.Event, progress: Callable[[], None] = lambda: None) -> None:
        """One connection until stop; raises MqttError at its end."""
        session = mqtt.connect(self._broker, self._credentials, self._client_id, self._clock)
        try:
            session.subscribe(self._topic)
            while not stop.is_set():
                progress()
                for event in session.step(0.2):
                    if isinstance(event, Message):
                        self.take(event)
                    elif isinstance(event, Subscribed):
                        self.connected.set()
        finally:
            session.close()

    def take(self, event: Message) -> None:
        """Understand and count one message."""
        fields = _fields(event)
        if fields is None:
            self.strange += 1
            return
        if self._show is not None:
            self._show(event.topic, fields, len(event.payload))
        stream, seq = fields.get("stream"), fields.get("seq")
        if event.retain or not isinstance(stream, str) or not isinstance(seq, int):
            return  # the past again (retained), or a state message that is not counted
        kind = event.topic.split("/")[3] if event.topic.count("/") >= 3 else ""
        late = None if kind == "evidence" else bool(fields.get("late"))
        fresh = self.completeness.take(stream, seq, late=late, reading=kind == "telemetry")
        first, last = fields.get("from"), fields.get("to")
        if fresh and kind == "gap" and isinstance(first, int) and isinstance(last, int):
            self.completeness.excuse(str(fields.get("of", stream)), first, last)


def _fields(event: Message) -> dict[str, Any] | None:
    levels = event.topic.split("/")
    if len(levels) > 4 and levels[3] == "evidence":
        user = event.user or (dict(zip(("stream", "seq", "id"), levels[5:8], strict=False)) if len(levels) >= 8 else {})
        return {**user, "seq": int(user["seq"])} if user.get("seq", "").isdecimal() else None
    try:
        found = json.loads(event.payload)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
