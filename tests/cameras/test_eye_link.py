"""What an eye process may say to the agent, and what the agent believes."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import ManualClock, Stamp
from edge_agent.eye_link import LABELS, Link, LinkClosedError, evidence_from, packed, pair, verdict_from
from edge_agent.vocabulary import Evidence, Verdict

AT = ManualClock().stamp()
STAMPS = st.builds(Stamp, st.integers(0, 2**62), st.integers(0, 2**45), st.booleans())
SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
DETAILS = st.dictionaries(
    st.text(max_size=5), st.integers() | st.text(max_size=9) | st.lists(st.integers()), max_size=3
)
VERDICTS = st.builds(
    Verdict,
    st.just("cam"),
    STAMPS,
    st.sampled_from(sorted(LABELS)),
    st.text(max_size=20),
    score=SCORES,
    threshold=SCORES,
    latency_ms=SCORES,
    details=DETAILS,
)


@pytest.fixture
def ends():
    ours, theirs = (Link(end) for end in pair())
    yield ours, theirs
    ours.close()
    theirs.close()


@given(VERDICTS)
def test_a_verdict_arrives_as_it_was(verdict):
    """Every verdict that a judge can make survives the journey."""
    ours, theirs = (Link(end) for end in pair())
    theirs.send("verdict", verdict=packed(verdict))
    message = ours.receive(10)
    assert message["say"] == "verdict"
    assert verdict_from(message["verdict"], "cam") == verdict
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": "other"},
        {"label": "perfect"},
        {"score": float("nan")},
        {"score": "high"},
        {"latency_ms": float("inf")},
        {"at": [1, 2]},
        {"at": ["x", 2, True]},
        {"evidence": 7},
        {"details": []},
    ],
)
def test_a_verdict_that_does_not_fit_is_not_believed(wrong):
    """Another camera's name, an unknown label, a number that is none, a broken stamp."""
    fields = packed(Verdict("cam", AT, "good", "rule")) | wrong
    with pytest.raises(ValueError):
        verdict_from(fields, "cam")


@pytest.mark.parametrize("fields", [None, [], "verdict", {}, {"subject": "cam"}])
def test_what_is_no_verdict_is_not_believed(fields):
    """Nor is half of one."""
    with pytest.raises(ValueError):
        verdict_from(fields, "cam")


def test_evidence_lies_in_its_own_folder():
    """A process that was taken over cannot make us send another file."""
    good = packed(Evidence("cam", AT, "cam-1", "/state/evidence/cam/cam-1.jpg", "0" * 64, 7))
    assert evidence_from(good, "cam", "/state/evidence/cam").id == "cam-1"
    for wrong in (
        {"path": "/etc/shadow"},
        {"path": "/state/evidence/cam/../../key.jpg", "id": "../../key"},
        {"id": "", "path": "/state/evidence/cam/.jpg"},
        {"camera": "other"},
    ):
        with pytest.raises(ValueError, match="from the eye"):
            evidence_from(good | wrong, "cam", "/state/evidence/cam")


def test_silence_is_no_message(ends):
    """Whoever waits gets nothing in time, and can go on."""
    assert ends[0].receive(0.01) is None


def test_an_end_that_closes_is_noticed_on_both_sides(ends):
    """Sending and receiving both tell."""
    ours, theirs = ends
    theirs.close()
    with pytest.raises(LinkClosedError):
        ours.receive(10)
    with pytest.raises(LinkClosedError):
        ours.send("look")


def test_who_has_finished_can_still_listen(ends):
    """Half closed: the order to stop goes one way, the last words come the other."""
    ours, theirs = ends
    ours.finish()
    with pytest.raises(LinkClosedError):
        theirs.receive(10)
    theirs.send("alive", counts={})
    assert ours.receive(10)["say"] == "alive"


@pytest.mark.parametrize("packet", [b"{", b"[]", b"7", b'{"say": 3}', b"\xff\xfe", b'{"no": "say"}'])
def test_nonsense_is_refused(packet):
    """What is no message raises, it is not guessed at."""
    ours, theirs = pair()
    theirs.send(packet)
    with pytest.raises(ValueError):
        Link(ours).receive(10)
    ours.close()
    theirs.close()


def test_messages_of_several_threads_do_not_mix(ends):
    """Judge, grabber and evidence speak at once."""
    ours, theirs = ends
    speakers = [
        threading.Thread(target=lambda name=name: [theirs.send(name, filler="x" * 5000) for _ in range(50)])
        for name in ("a", "b", "c")
    ]
    for speaker in speakers:
        speaker.start()
    heard = [ours.receive(10)["say"] for _ in range(150)]
    assert sorted(heard) == ["a"] * 50 + ["b"] * 50 + ["c"] * 50
    for speaker in speakers:
        speaker.join(10)


def test_a_message_that_is_too_large_is_a_mistake_of_the_sender(ends):
    """Pictures do not go through here."""
    with pytest.raises(ValueError, match="bytes"):
        ends[0].send("verdict", picture="x" * 100_000)
