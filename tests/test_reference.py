"""What is written about the configuration is what the code declares."""

from __future__ import annotations

import pytest

from edge_agent import reference
from edge_agent.config import loads
from edge_agent.declarations import settings_of
from edge_agent.document import parse
from edge_agent.sample import EXAMPLE, section_of, text


@pytest.mark.parametrize("path", reference.rendered_files(), ids=lambda path: path.name)
def test_the_files_are_as_rendered(path):
    """The reference, the example and the READMEs' blocks: `python -m edge_agent.reference --write` makes them so."""
    assert path.read_text(encoding="utf-8") == reference.rendered_files()[path]


def test_every_setting_of_every_kind_is_explained():
    """One sentence for each: it begins with a capital, a number or code, and ends with a full stop."""
    for title, section in reference.sections():
        assert section.__doc__, title
        for name, setting in section.model_fields.items():
            sentence = setting.description
            assert sentence, f"{title}: {name} has no description"
            assert sentence[0].isupper() or sentence[0] in "`0123456789", f"{title}: {name}: {sentence}"


def test_every_setting_stands_in_the_reference():
    """Nothing is forgotten, also of kinds that share settings."""
    page = reference.page()
    for title, section in reference.sections():
        assert f"## {title}\n" in page
        for name in settings_of(section):
            assert f"`{name}`" in page, f"{title}: {name}"


def test_the_example_is_right(tmp_path):
    """It loads without a mistake, and means what it was rendered from."""
    config = loads(reference.example(), tmp_path / "config.yaml")
    assert config.devices.keys() == EXAMPLE["devices"].keys()
    assert config.alarms["overload"].clear == "< 42 kW"
    plain = parse(text(EXAMPLE), "example")
    assert plain.data == EXAMPLE


def test_the_example_shows_every_setting_of_its_kinds():
    """Set, or commented out with its default."""
    shown = reference.example()
    for key in ("buses", "devices", "cameras", "alarms", "outputs"):
        for entry in EXAMPLE[key].values():
            for name in settings_of(section_of(key, entry, EXAMPLE)):
                assert f" {name}: " in shown, f"{key}: {name}"


def test_what_is_commented_out_is_the_default(tmp_path):
    """Uncommenting a default changes nothing: every shown default can be read again."""
    lines = reference.example().splitlines()
    changed = []
    for number, line in enumerate(lines):
        bare = line.strip().removeprefix("# ")
        key = bare.partition(":")[0]
        if not line.strip().startswith("# ") or " " in key or number + 1 == len(lines) or bare.endswith(":"):
            continue
        if any(mark in bare for mark in ("text", "/path/", "…", "`")) or bare[0].isupper():
            continue
        trial = [*lines[:number], line.replace("# ", "", 1), *lines[number + 1 :]]
        changed.append(loads("\n".join(trial), tmp_path / "config.yaml"))
    assert len(changed) > 20
