"""What may be asked of a running agent: over the control socket, and as MQTT commands.

A command carries an id and an expiry; one that is late, repeated, malformed or unknown is refused, and counted.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Any

import structlog

from edge_agent.agent import Agent
from edge_agent.errors import EdgeAgentError
from edge_agent.flight import json_object

log = structlog.get_logger("command")


class Commands:
    """The commands of one agent: remembers what was carried out, so that a repeat is not."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._done: deque[str] = deque(maxlen=1000)

    def answer(self, name: str, payload: bytes) -> dict[str, object] | None:
        """Answer a command from the broker; None for what deserves no answer."""
        agent = self._agent
        try:
            request = json_object(payload)
        except ValueError as error:
            return _refuse(agent, name, None, str(error))
        request_id = request.get("id")
        if not isinstance(request_id, str) or not 1 <= len(request_id) <= 100:
            return _refuse(agent, name, None, "id is missing")
        try:
            _check_expiry(agent, request)
            self._check_fresh(request_id)
            result = _carry_out(agent, name, request)
        except (EdgeAgentError, ValueError) as error:
            return _refuse(agent, name, request_id, str(error))
        self._done.append(request_id)
        log.info("command", name=name, id=request_id)
        return {"id": request_id, "ok": True, **result}

    def _check_fresh(self, request_id: str) -> None:
        if request_id in self._done:
            raise EdgeAgentError("was carried out already")


def control(agent: Agent, question: dict[str, Any]) -> dict[str, Any]:
    """Answer a question of the control socket; raises EdgeAgentError or ValueError."""
    match question.get("ask"):
        case "status":
            return agent.status()
        case "alarms":
            return {"alarms": agent.alarms()}
        case "acknowledge":
            return _acknowledge(agent, question.get("alarm"), str(question.get("who", "command line")))
        case "shelve":
            return _shelve(agent, question, str(question.get("who", "command line")))
        case "lamp-test":
            _stage(agent).lamp_test()
            return {"done": True}
        case other:
            raise EdgeAgentError(f"{other!r} is not a question")


def _carry_out(agent: Agent, name: str, request: dict[str, Any]) -> dict[str, Any]:
    who = str(request.get("who", "broker"))[:100]
    match name:
        case "status":
            return agent.status()
        case "acknowledge":
            return _acknowledge(agent, request.get("alarm"), who)
        case "shelve":
            return _shelve(agent, request, who)
        case _:
            raise EdgeAgentError(f"{name!r} is not a command", hint="status, acknowledge, shelve")


def _check_expiry(agent: Agent, request: dict[str, Any]) -> None:
    expires = request.get("expires")
    if not isinstance(expires, str):
        raise EdgeAgentError("expires is missing", hint="an RFC 3339 time")
    moment = datetime.fromisoformat(expires)
    if moment.tzinfo is None:
        raise EdgeAgentError("expires needs its zone", hint="end it with Z")
    stamp = agent.clock.stamp()
    if not stamp.synced:
        log.info("command expiry judged by an unsynced clock")
    if moment < datetime.fromtimestamp(stamp.wall_ms / 1000, UTC):
        raise EdgeAgentError("has expired")


def _refuse(agent: Agent, name: str, request_id: str | None, why: str) -> dict[str, object] | None:
    agent.health.count("command.refused")
    log.warning("command refused", name=name, id=request_id, reason=why)
    return {"id": request_id, "ok": False, "error": why} if request_id else None


def _stage(agent: Agent) -> Any:
    if agent.stage is None:
        raise EdgeAgentError("no alarms are configured")
    return agent.stage


def _acknowledge(agent: Agent, name: object, who: str) -> dict[str, Any]:
    if name is not None and not isinstance(name, str):
        raise EdgeAgentError("alarm must be a name, or left out for all")
    return {"acknowledged": [change.alarm for change in _stage(agent).acknowledge(name, who)]}


def _shelve(agent: Agent, question: dict[str, Any], who: str) -> dict[str, Any]:
    """For ``seconds``; 0 takes it off the shelf."""
    seconds = question.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 7 * 86400:
        raise EdgeAgentError("seconds must be between 0 and 604800")
    changes = _stage(agent).shelve(str(question.get("alarm")), float(seconds), who)
    return {"shelved": [change.alarm for change in changes]}
