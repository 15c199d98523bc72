"""What may be asked of a running agent: over the control socket, and as MQTT commands.

A command carries an id and an expiry; one that is late, repeated, malformed or unknown is refused, and counted.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from edge_agent.agent import Agent
from edge_agent.errors import EdgeAgentError
from edge_agent.payload import json_object

log = structlog.get_logger("command")

_LONGEST: Final = timedelta(hours=1)  # an order for later may be repeated by anybody until then
_REMEMBERED_MAX: Final = 10_000


class Commands:
    """The commands of one agent: remembers what was carried out, so that a repeat is not."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._done: dict[str, datetime] = {}  # id → when it expires, after which it is refused anyway

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
            expires = self._fresh(request_id, request)
            result = _carry_out(agent, name, request)
        except (EdgeAgentError, ValueError) as error:
            return _refuse(agent, name, request_id, str(error))
        self._done[request_id] = expires
        log.info("command", name=name, id=request_id)
        return {"id": request_id, "ok": True, **result}

    def _fresh(self, request_id: str, request: dict[str, Any]) -> datetime:
        """When it expires; raises EdgeAgentError or ValueError when it has, or was carried out before."""
        now = datetime.fromtimestamp(self._agent.clock.stamp().wall_ms / 1000, UTC)
        expires = _expiry(request, now)
        self._done = {done: until for done, until in self._done.items() if until >= now}
        if request_id in self._done:
            raise EdgeAgentError("was carried out already")
        if len(self._done) >= _REMEMBERED_MAX:
            raise EdgeAgentError("too many commands", hint="wait until some have expired")
        return expires


def control(agent: Agent, question: dict[str, Any]) -> dict[str, Any]:
    """Answer a question of the control socket; raises EdgeAgentError or ValueError."""
    match question.get("ask"):
        case "status":
            return agent.report.status()
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
            return _tell(agent, str(other), question)


def _tell(agent: Agent, asked: str, question: dict[str, Any]) -> dict[str, Any]:
    """What other verbs need to know."""
    match asked:
        case "models":
            return _models(agent, changed=bool(question.get("changed")))
        case "readings":
            return _readings(agent, str(question.get("listener"))[:100])
        case "correct":
            return _correct(agent, question)
        case _:
            raise EdgeAgentError(f"{asked!r} is not a question")


def _carry_out(agent: Agent, name: str, request: dict[str, Any]) -> dict[str, Any]:
    who = str(request.get("who", "broker"))[:100]
    match name:
        case "status":
            return agent.report.status()
        case "acknowledge":
            return _acknowledge(agent, request.get("alarm"), who)
        case "shelve":
            return _shelve(agent, request, who)
        case _:
            raise EdgeAgentError(f"{name!r} is not a command", hint="status, acknowledge, shelve")


def _expiry(request: dict[str, Any], now: datetime) -> datetime:
    text = request.get("expires")
    if not isinstance(text, str):
        raise EdgeAgentError("expires is missing", hint="an RFC 3339 time")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise EdgeAgentError("expires needs its zone", hint="end it with Z")
    try:
        left = moment - now
    except OverflowError as error:
        raise EdgeAgentError("expires is no time of this world") from error
    if left < timedelta(0):
        raise EdgeAgentError("has expired")
    if left > _LONGEST:
        raise EdgeAgentError("expires too far in the future", hint="at most an hour from now")
    return moment


def _refuse(agent: Agent, name: str, request_id: str | None, why: str) -> dict[str, object] | None:
    agent.health.count("command.refused")
    log.warning("command refused", name=name, id=request_id, reason=why)
    return {"id": request_id, "ok": False, "error": why} if request_id else None


def _models(agent: Agent, *, changed: bool) -> dict[str, Any]:
    """The bundles that it decides with; ``changed``: it is to look again which releases those are."""
    if changed:
        agent.models_changed()
    return {"bundles": sorted({section.bundle for section in agent.config.models.values()})}


def _readings(agent: Agent, listener: str) -> dict[str, Any]:
    """Every reading since this listener last asked."""
    readings = [
        {"device": each.device, "at_s": each.at.wall_ms / 1000, "values": each.values, "absent": each.absent}
        for each in agent.tap.take(listener)
    ]
    return {"readings": readings}


def _correct(agent: Agent, question: dict[str, Any]) -> dict[str, Any]:
    """A person says what a kept picture shows: put on record, then told the broker."""
    from edge_agent import relabelling  # noqa: PLC0415 - only who has cameras pays for it

    at = agent.clock.stamp()
    picture, label, who = (str(question.get(name, "")) for name in ("picture", "label", "who"))
    found = relabelling.correct(agent.config.state_dir, picture, label, who or "command line", at)
    agent.recorder.row(found.row(at))
    log.info("corrected", picture=found.kept.id, label=found.label, was=found.was, who=found.who)
    return {"picture": found.kept.id, "label": found.label, "was": found.was}


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
