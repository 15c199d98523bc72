"""Orders from the broker: an id, an expiry, once; anything else is refused, counted and harmless."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent import Agent
from edge_agent.clock import ManualClock, iso
from edge_agent.config import loads
from edge_agent.remote import Commands


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote")
    made = Agent(loads("site: a\nline: b\nstate_dir: state\n", folder / "config.yaml"), ManualClock())
    made.spool.open()
    yield made
    made.spool.close()


def order(agent: Agent, *, seconds: float = 60, **fields) -> bytes:
    expires = iso(agent.clock.stamp().wall_ms + int(seconds * 1000))
    return json.dumps({"id": "1", "expires": expires, **fields}).encode()


def test_a_command_is_carried_out_once(agent):
    """With an id and a future expiry it is answered; the same id again is refused."""
    commands = Commands(agent)
    answer = commands.answer("status", order(agent))
    assert (answer["id"], answer["ok"], answer["line"]) == ("1", True, "a/b")
    again = commands.answer("status", order(agent))
    assert (again["ok"], again["error"]) == (False, "was carried out already")


def test_a_thousand_others_do_not_make_it_new(agent):
    """An order is remembered until it has expired, however many came after it."""
    commands = Commands(agent)
    first = order(agent)
    assert commands.answer("status", first)["ok"]
    for n in range(1500):
        commands.answer("status", order(agent, id=f"other-{n}"))
    assert not commands.answer("status", first)["ok"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seconds": -1}, "has expired"),
        ({"seconds": 2 * 86400}, "too far"),
        ({"expires": None}, "expires is missing"),
        ({"expires": "tomorrow"}, "Invalid isoformat"),
        ({"expires": "2026-11-20T05:51:02"}, "zone"),
        ({"expires": "9999-12-31T23:59:59-23:59"}, ""),
        ({"expires": "0001-01-01T00:00:00+23:59"}, ""),
    ],
)
def test_without_a_sensible_expiry_nothing_is_done(agent, changes, why):
    """Expired, endless, missing, no time at all, or without a zone: refused with the reason, to the sender."""
    answer = Commands(agent).answer("status", order(agent, **changes))
    assert (answer["id"], answer["ok"]) == ("1", False)
    assert why in answer["error"]


@pytest.mark.parametrize("name", ["", "reboot", "status/../x", "acknowledge", "shelve"])
def test_what_is_unknown_or_has_no_alarms_is_refused(agent, name):
    """A name that is no command, and alarm commands of an agent without alarms, change nothing."""
    before = agent.health.counters().get("command.refused", 0)
    assert not Commands(agent).answer(name, order(agent, seconds=60, alarm="hot"))["ok"]
    assert agent.health.counters()["command.refused"] == before + 1


@given(
    payload=st.binary(max_size=300)
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=20), st.lists, max_leaves=5).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_garbage_is_refused_without_an_answer(agent, payload):
    """Whatever is no object with an id is counted and not answered."""
    assert Commands(agent).answer("status", payload) is None


@pytest.mark.parametrize(
    "payload", [b"[" * 100_000, b'{"id":' + b'"x"' * 40_000, b'{"id":"' + b"x" * 200 + b'"}', b'{"id":5}', b'{"id":""}']
)
def test_deep_long_and_odd_payloads_are_refused(agent, payload):
    """Deep nesting, a long payload, a long id or one that is no text ends in a refusal, not in a crash."""
    assert Commands(agent).answer("status", payload) is None
