"""Commissioning records: signed by this machine, changed by nobody, the newest kept."""

from __future__ import annotations

import json

import pytest

from edge_agent.commissioning import record
from edge_agent.errors import EdgeAgentError
from models.keys import trusted

BODY = {"kind": "meter", "who": "김", "readings": {"voltage_l1": 230.25}, "good": True}


def test_a_record_reads_back_with_the_machines_key(tmp_path):
    """What was written, in any language."""
    path = record.write(tmp_path, "main-meter", BODY, 1_795_000_000_123)
    assert path.name == "main-meter.20261118T110640123Z.record.json"
    assert record.read(path, trusted(tmp_path, [])) == BODY


def test_a_changed_record_is_refused(tmp_path):
    """One digit is enough."""
    path = record.write(tmp_path, "main-meter", BODY, 0)
    path.write_text(path.read_text().replace("230.25", "231.25"))
    with pytest.raises(EdgeAgentError, match="changed"):
        record.read(path, trusted(tmp_path, []))


def test_the_record_of_another_machine_is_refused(tmp_path):
    """Its key is not known here."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = record.write(tmp_path / name, "m", BODY, 0)
    with pytest.raises(EdgeAgentError, match="unknown key"):
        record.read(path, trusted(tmp_path / "a", []))


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"record": {}, "key": 1, "signature": "?"})])
def test_what_is_no_record_is_said(tmp_path, text):
    """With its name."""
    path = tmp_path / "x.record.json"
    path.write_text(text)
    with pytest.raises(EdgeAgentError):
        record.read(path, trusted(tmp_path, []))


def test_only_the_newest_are_kept(tmp_path):
    """Of each device by itself."""
    for index in range(record.KEPT + 2):
        record.write(tmp_path, "m", BODY, index * 1000)
    record.write(tmp_path, "other", BODY, 0)
    names = sorted(path.name for path in (tmp_path / "calibration").iterdir())
    assert len(names) == record.KEPT + 1
    assert names[0].startswith("m.19700101T000002")
