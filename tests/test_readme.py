"""What the documents tell people to type, and what they say is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from edge_agent.cli import VERBS, main

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "README.ko.md",
    "docs/commissioning.md",
    "docs/judging.md",
    "docs/operations.md",
    "docs/training.md",
)


def typed() -> list[tuple[str, list[str]]]:
    """Every command of a shell block: the document, and its words."""
    found = []
    for name in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(), re.DOTALL):
            for line in re.sub(r"\\\n", " ", block).splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    found.append((name, words))
    return found


@pytest.mark.parametrize(
    ("document", "words"), typed(), ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_what_is_to_be_typed_exists(document, words, capsys):
    """Programs of this folder are there; verbs are understood, and have the options that are written."""
    while words[0] == "sudo":
        words = words[3:] if words[1] == "-u" else words[1:]
    program, *rest = words
    if "/" in program:
        assert (ROOT / program).is_file()
    if program == "./do":
        assert f"\n    {rest[0]})" in (ROOT / "do").read_text()
    if program != "edge-agent":
        return
    verb = [word for word in rest[:2] if re.fullmatch("[a-z-]+", word) and not word.startswith("-")]
    if main([*verb, "--help"]) != 0:
        verb = verb[:1]
        assert main([*verb, "--help"]) == 0, words
    shown = capsys.readouterr().out
    for option in (word for word in rest if word.startswith("--")):
        assert f"{option} " in shown, (document, option)


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
def test_every_verb_is_in_the_table(readme):
    """In both languages."""
    rows = re.findall(r"^\| `([a-z]+)", (ROOT / readme).read_text(), re.MULTILINE)
    assert VERBS.keys() <= set(rows)


def test_links_lead_somewhere():
    """Files of the project that a document points to are there."""
    for document in (ROOT / "README.md", ROOT / "README.ko.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)
