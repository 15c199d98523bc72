"""Vendors' tables: tolerant about how they are written, strict about what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.registers import load_profile
from edge_agent.commissioning.draft import text_of
from edge_agent.commissioning.table import quantity_of, reads
from edge_agent.errors import ConfigError

VENDOR = """\
Register;Parameter;Data type;Unit;Scale;Function
30001;Phase 1 line to neutral volts;Float;V;;04
30003;Phase 2 line to neutral volts;Float;V;;04

30009;Ib;uint32;mA;/10;04
30053;Total system power;FLOAT32;kW;;04
30235;THD L1;float;%;;04
"""


def test_a_vendor_table_becomes_a_profile(tmp_path):
    """Modicon numbers, semicolons, other words for types; the file is one that the daemon takes."""
    table = reads(VENDOR, "table.csv", base=1)
    assert table.left_out == [(7, "THD L1")]
    path = tmp_path / "my.yaml"
    path.write_text(text_of(table.rows, name="mine", source="table.csv", notes=["tried"], word_order="little"))
    profile = load_profile("./my.yaml", tmp_path)
    rows = {row.name: row for row in profile.registers}
    assert (rows["voltage_l2"].at, rows["voltage_l2"].fc, rows["voltage_l2"].type) == (2, 4, "f32")
    assert float(rows["current_l2"].gain) == pytest.approx(1e-4)
    assert float(rows["active_power"].gain) == 1000
    assert rows["active_power"].word_order == "little"


def test_every_mistake_comes_at_once_with_its_line():
    """A wrong address, type, unit, scale and a quantity that stands twice."""
    text = (
        "Address,Name,Type,Unit,Scale\nxx,V1,float,V,\n3,V2,flot,V,\n5,V3,float,A,\n7,I1,u16,A,zero\n9,I1,u16,A,0.1\n"
    )
    with pytest.raises(ConfigError) as caught:
        reads(text, "bad.csv")
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4, 5, 6]
    assert "stands in line 5 already" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "a,b\n1,2\n", "address,name\n1,V1\n", "address,name,type\n1,colour,u16\n"]
)
def test_what_is_no_table_is_said(text):
    """Missing columns, nothing that we know."""
    with pytest.raises(ConfigError):
        reads(text, "no.csv")


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("L1-N voltage", "voltage_l1"), ("UL1", "voltage_l1"), ("V L1-L2", "voltage_l1_l2"), ("V12", "voltage_l1_l2"),
        ("Voltage A-N", "voltage_l1"), ("Voltage C-A", "voltage_l3_l1"), ("Current R", "current_l1"),
        ("I3", "current_l3"),
        ("Active Power L2", "active_power_l2"), ("Active power total", "active_power"),
        ("kvar L1", "reactive_power_l1"),
        ("Power factor C", "power_factor_l3"), ("PF3", "power_factor_l3"), ("Line frequency", "frequency"),
        ("Forward active energy", "energy_import"), ("Reverse active energy L2", "energy_export_l2"),
        ("Reactive energy export", "reactive_energy_export"), ("active_power_l3", "active_power_l3"),
        ("Voltage THD phase A", None), ("Max demand", None), ("CT ratio", None), ("Serial number", None),
    ],
)  # fmt: skip
def test_names_are_understood(name, quantity):
    """As makers print them."""
    assert quantity_of(name) == quantity


@pytest.mark.parametrize(
    ("written", "scale"),
    [("", 1), ("0.1", 0.1), ("0,01", 0.01), ("/10", 0.1), ("x100", 100), ("1/1000", 0.001), ("10^-2", 0.01)],
)
def test_scales_are_understood(written, scale):
    """As makers print them."""
    table = reads(f'address;name;type;unit;scale\n0x10;V1;u16;V;"{written}"\n', "t.csv")
    assert table.rows["voltage_l1"].scale == pytest.approx(scale)
    assert table.rows["voltage_l1"].at == 0x10


def test_a_file_that_is_not_there_is_said(tmp_path):
    """With its name."""
    from edge_agent.commissioning.table import read

    with pytest.raises(ConfigError, match=r"none\.csv"):
        read(Path(tmp_path / "none.csv"))
