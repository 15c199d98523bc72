"""The language of alarm rules: what is read, what is refused and how, and when a condition holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import Stamp
from edge_agent.conditions import Compare, Facts, Is, Many, Node, Not, Rule
from edge_agent.errors import RuleError
from edge_agent.rules import check, parse
from edge_agent.vocabulary import QUANTITIES, Quantity, Reading, Verdict

AT = Stamp(0, 0, synced=True)
DEVICES = {
    "main-meter": QUANTITIES,
    "cabinet": {name: QUANTITIES[name] for name in ("temperature", "relative_humidity")},
    "pump": {"flow": Quantity("flow", "L/min", 0, 500)},
}
SUBJECTS = {"outfeed": frozenset({"good", "defect"}), "normal": frozenset({"normal", "anomaly"})}


def reading(device: str, absent: dict[str, str] | None = None, **values: float) -> Reading:
    return Reading(device, AT, values, absent or {})


def verdict(subject: str, label: str) -> Verdict:
    return Verdict(subject, AT, label, "rule/test")


def knowing(rule: Rule, *items: Reading | Verdict) -> Facts:
    facts = Facts([rule])
    for item in items:
        facts.take(item)
    return facts


# --- what is read


@pytest.mark.parametrize(
    "text",
    [
        "main-meter.active_power > 45 kW",
        "cabinet.temperature >= 60 °C",
        "main-meter.power_factor < 0.8",
        "cabinet.relative_humidity > 80 %",
        "pump.flow <= 2.5 L/min",
        "outfeed is defect",
        "main-meter is offline",
        "cabinet.temperature is absent",
        "not outfeed is good",
        "not (outfeed is good or normal is normal)",
        "outfeed is defect and (main-meter is offline or cabinet is offline)",
        "outfeed is defect and main-meter is offline or cabinet is offline",
        "(outfeed is defect or normal is anomaly) or main-meter is offline",
    ],
)
def test_a_rule_is_printed_as_it_was_written_and_fits_the_line(text):
    """Every form of the grammar survives reading and printing, and passes the check against a line that has it."""
    assert (str(parse(text)), check(parse(text), DEVICES, SUBJECTS)) == (text, [])


@pytest.mark.parametrize(
    "text", ["a.b>45kW", "  a.b  >  45.0 kW ", "a.b > 4.5e1 kW", "a.b > +45 kW", "((a.b > 45 kW))"]
)
def test_spelling_does_not_matter(text):
    """Spaces, attached units, exponents and needless brackets change nothing."""
    assert parse(text) == Rule(Compare("a.b", ">", 45.0, "kW"))


def test_and_binds_tighter_than_or():
    """``a or b and c`` is ``a or (b and c)``."""
    a, b, c = Is("a", "x"), Is("b", "x"), Is("c", "x")

    assert parse("a is x or b is x and c is x").when == Many("or", (a, Many("and", (b, c))))


names = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True).filter(lambda word: word not in {"and", "or", "not", "is"})
inputs = st.builds("{}.{}".format, names, st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True))
compares = st.builds(
    Compare,
    inputs,
    st.sampled_from([">", ">=", "<", "<="]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "kW", "°C", "%", "%RH", "L/min", "g/m³", "é"]),
)
leaves = compares | st.builds(Is, names, names) | st.builds(Is, inputs, st.just("absent"))
conditions = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(Many, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=12,
)


@given(conditions)
def test_printing_and_reading_gives_the_same_rule(when: Node):
    """Whatever can be said can be printed and read back: brackets stand where they are needed."""
    assert parse(str(Rule(when))) == Rule(when)


@given(st.text() | st.text(alphabet="ab.<>=() isnotandor45kW-°%", max_size=60), st.none() | st.text(max_size=10))
def test_no_text_crashes_the_parser(text, clear):
    """Any text is either a rule or a RuleError; a rule that was read can be printed and read again."""
    try:
        rule = parse(text, clear)
    except RuleError:
        return
    assert parse(str(rule)) == Rule(rule.when)


@pytest.mark.parametrize("text", ["(" * 10_000, "not " * 10_000 + "a is x"])
def test_a_rule_deeper_than_anybody_can_read_is_refused(text):
    """Depth is bounded, so that no text exhausts the stack."""
    with pytest.raises(RuleError, match="brackets deep"):
        parse(text)


def test_a_long_rule_is_not_a_deep_one():
    """Any number of terms may be joined."""
    assert parse(" and ".join(["a is x"] * 5_000)).inputs == {"a"}


# --- what is refused, and how


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "column 1: expected the name of a device, camera or model, but the rule ends here"),
        ("a.b 45", "column 5: expected '>', '>=', '<', '<=' or 'is', not '45'"),
        ("a.b si absent", "column 5: expected '>', '>=', '<', '<=' or 'is', not 'si' — did you mean 'is'?"),
        ("a.b > much", "column 7: expected a number, not 'much'"),
        ("a.b > 1e999 W", "column 7: expected a number, not '1e999'"),
        ("a.b > 45and", "column 7: expected a number and its unit, not '45and'"),
        ("a is x AND b is x", "column 8: expected 'and', 'or' or the end, not 'AND' — did you mean 'and'?"),
        ("(a is x", "column 8: expected ')', 'and' or 'or', but the rule ends here"),
        ("a.b is abset", "column 8: a quantity is compared, or it 'is absent', not 'abset' — did you mean 'absent'?"),
        ("a > 3", "column 3: 'a' has no level: compare one of its quantities, like a.temperature, not '>'"),
        ("a.b.c > 3", "column 1: expected the name of a device, camera or model, not 'a.b.c'"),
        ("and is x", "column 1: expected the name of a device, camera or model, not 'and'"),
        ("a is", "column 5: expected what 'a' is, but the rule ends here"),
    ],
)
def test_a_mistake_is_named_with_its_column_and_the_nearest_right_word(text, says):
    """A line engineer sees where the rule goes wrong and what would be right."""
    with pytest.raises(RuleError) as caught:
        parse(text)

    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("outfed is defect", ["'outfed' is no device, camera or model — did you mean 'outfeed'?"]),
        (
            "main-meter.activ_power > 45 kW",
            ["'main-meter' has no quantity 'activ_power' — did you mean 'active_power'"],
        ),
        ("main-meter.active_power > 45", ["active_power > 45 needs its unit, one of"]),
        ("main-meter.active_power > 45 kV", ["active_power is in mW, W, kW, MW, GW: '> 45 kV' does not fit — did you"]),
        ("main-meter.power_factor > 0.8 kW", ["power_factor has no unit: '> 0.8 kW' does not fit"]),
        ("pump.flow > 3 l/min", ["flow is in L/min: '> 3 l/min' does not fit — did you mean 'L/min'?"]),
        ("main-meter.active_power > 45000 kW", ["active_power never gets as far as '> 45000 kW'"]),
        ("outfeed is defct", ["'outfeed' is never 'defct' — did you mean 'defect'?"]),
        ("main-meter is absent", ["'main-meter' is never 'absent'"]),
        ("outfeed is offline", ["'outfeed' is never 'offline'"]),
        ("outfeed.temperature > 3 °C", ["'outfeed' is a camera or model: it has no quantities, only what it says"]),
        ("outfeed.fallbacks > 120 %", ["fallbacks never gets as far as '> 120 %'"]),
        ("outfeed.fallbacks > 0.2", ["fallbacks > 0.2 needs its unit, one of %"]),
        ("outfeed.fallbacks is absent", ["'outfeed' is a camera or model: it has no quantities, only what it says"]),
        ("a is x and cabinet.temperatur is absent", ["'a' is no device, camera or model", "'cabinet' has no quantity"]),
    ],
)
def test_what_does_not_fit_the_line_is_named_all_at_once(text, says):
    """The check names every device, quantity, unit and label that is not there, and the nearest that is."""
    problems = check(parse(text), DEVICES, SUBJECTS)

    assert len(problems) == len(says)
    assert all(problem.startswith(start) for problem, start in zip(problems, says, strict=True)), problems


@pytest.mark.parametrize(
    ("when", "clear"),
    [
        ("a.b > 45 kW", "< 46 kW"),
        ("a.b > 45 kW", "< 45 kW"),
        ("a.b > 45 kW", "> 42 kW"),
        ("a.b < 5 °C", "> 4 °C"),
        ("a.b > 45 kW", "< 42"),
        ("a.b > 45 kW", "< 42 A"),
        ("a is x", "< 42"),
        ("a.b > 45 kW and a is x", "< 42 kW"),
        ("a.b > 45 kW", "< 42 kW or"),
    ],
)
def test_a_clear_level_that_is_no_hysteresis_is_an_error(when, clear):
    """The clear level lies on the other side, in the same unit, and completes exactly one comparison."""
    with pytest.raises(RuleError):
        parse(when, clear)


# --- when it holds


def test_levels_are_compared_in_base_units():
    """45 kW is 45,000 W, whatever the driver gives."""
    rule = parse("main-meter.active_power > 45 kW")

    assert rule.holds(knowing(rule, reading("main-meter", active_power=45_000.1)), held=False) is True
    assert rule.holds(knowing(rule, reading("main-meter", active_power=45_000.0)), held=False) is False


def test_nothing_is_known_before_anything_arrived():
    """Without a reading no condition holds, and none does not."""
    for text in ("a.b > 1 W", "a.b is absent", "a is offline", "a is x", "not a is x", "a is x or a.b > 1 W"):
        rule = parse(text)
        assert rule.holds(Facts([rule]), held=False) is None


def test_an_absent_quantity_satisfies_no_comparison_neither_way():
    """What is absent is not known: not above, not below, and not a reason to clear."""
    rule = parse("a.b > 45 kW", "< 42 kW")
    facts = knowing(rule, reading("a", b=50_000.0), reading("a", {"b": "timeout"}))

    assert (rule.holds(facts, held=False), rule.holds(facts, held=True)) == (None, None)
    assert rule.missing(facts) == ("a.b",)
    assert rule.cause(facts) == "a.b is absent (timeout)"


def test_a_quantity_that_was_not_due_stays_as_it_was():
    """A device with several periods does not lose a slow quantity with every fast reading."""
    rule = parse("a.slow > 1 W")

    assert rule.holds(knowing(rule, reading("a", slow=2.0), reading("a", fast=0.0)), held=False) is True


def test_what_is_absent_does_not_matter_where_it_cannot_change_the_answer():
    """``and``, ``or`` and ``not`` are Kleene's."""
    facts_of = lambda rule: knowing(rule, reading("a", {"gone": "crc"}, here=1.0))  # noqa: E731
    for text, holds in {
        "a.here > 0 W or a.gone > 0 W": True,
        "a.here < 0 W or a.gone > 0 W": None,
        "a.here < 0 W and a.gone > 0 W": False,
        "a.here > 0 W and a.gone > 0 W": None,
        "not a.gone > 0 W": None,
        "not a.here > 0 W": False,
    }.items():
        rule = parse(text)
        assert rule.holds(facts_of(rule), held=False) is holds, text


def test_a_device_is_offline_when_a_reading_gave_no_value_at_all():
    """One value is enough to be there; an empty reading says nothing."""
    rule = parse("a is offline")
    empty = reading("a")
    dead = reading("a", {"b": "timeout", "c": "timeout"})

    assert rule.holds(knowing(rule, empty), held=False) is None
    assert rule.holds(knowing(rule, dead), held=False) is True
    assert rule.holds(knowing(rule, dead, reading("a", {"b": "nan"}, c=1.0)), held=False) is False
    assert rule.cause(knowing(rule, dead)) == "a is offline (timeout)"


@pytest.mark.parametrize("label", ["not-inspected", "unknown"])
def test_a_camera_that_could_not_look_has_not_seen_a_good_part(label):
    """A blind verdict neither holds nor clears ``is defect``; a rule that asks for blindness itself gets it."""
    defect, blind = parse("outfeed is defect"), parse(f"outfeed is {label}")
    items = (verdict("outfeed", "defect"), verdict("outfeed", label))

    assert defect.holds(knowing(defect, *items), held=True) is None
    assert defect.missing(knowing(defect, *items)) == ("outfeed",)
    assert blind.holds(knowing(blind, *items), held=False) is True


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(1, 99), st.floats(0.5, 20))
def test_hysteresis_never_turns_twice_without_crossing_the_whole_band(values, level, width):
    """It begins only above the level, ends only below the clear level, and keeps its state in between."""
    rule = parse(f"a.b > {level!r} W", f"< {level - width!r} W")
    held = False
    for value in values:
        facts = knowing(rule, reading("a", b=value))
        holds = rule.holds(facts, held=held)
        assert holds is (True if value > level else False if value < level - width else held)
        held = bool(holds)


def test_only_what_a_rule_names_are_its_inputs():
    """Readings of other devices need not be looked at."""
    assert parse("a.b > 1 W and (c is x or not d is offline)").inputs == {"a", "c", "d"}


@pytest.mark.parametrize(
    ("text", "sampled"),
    [("a.b > 1 W", True), ("a is defect", True), ("a is offline", False), ("a.b is absent or a is offline", False)],
)
def test_a_state_lasts_between_readings_and_a_sample_does_not(text, sampled):
    """That a device is offline holds until it answers; that a power is high holds at its reading."""
    assert parse(text).is_sampled is sampled


def test_the_cause_speaks_in_the_units_of_the_rule():
    """Who wrote kW reads kW."""
    rule = parse("a.p > 45 kW and (b is offline or c is defect)")
    facts = knowing(rule, reading("a", p=46_234.5), reading("b", t=1.0), verdict("c", "defect"))

    assert rule.cause(facts) == "a.p is 46.2345 kW; b answers; c is defect"


def test_the_share_of_fallbacks_is_of_the_last_hundred_decisions():
    """A decision is a fallback's where somebody could not, or nobody could; unknown, said by the model, is none."""
    rule = parse("outfeed.fallbacks > 20 %", clear="< 10 %")
    facts = Facts([rule])
    assert rule.holds(facts, held=False) is None
    own = Verdict("outfeed", AT, "unknown", "pitting@3/int8-onnx")
    other = Verdict("outfeed", AT, "good", "rule/dark-spot@1", details={"failed": ["pitting@3: it hangs"]})
    nobody = Verdict("outfeed", AT, "unknown", "nobody", reason="judge-failed")

    for verdict, count, share, holds in ((own, 80, 0.0, False), (other, 20, 20.0, False), (nobody, 1, 21.0, True)):
        for _ in range(count):
            facts.take(verdict)
        assert facts.values["outfeed.fallbacks"] == share
        assert rule.holds(facts, held=False) is holds
    assert rule.cause(facts) == "outfeed.fallbacks is 21 %"
    for _ in range(91):
        facts.take(own)
    assert rule.holds(facts, held=True) is False
