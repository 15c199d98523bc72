"""What the audience sees: the line's values, the light, the broker and the count, redrawn in place."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from rich.columns import Columns
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from edge_agent.demo.stage import Stage

_LAMPS: Final = (("red", "red"), ("amber", "yellow"), ("green", "green"))
_SHOWN: Final = (
    ("active_power", 1e-3, "kW"),
    ("voltage_l1", 1, "V"),
    ("voltage", 1, "V"),
    ("frequency", 1, "Hz"),
    ("energy_import", 1e-3, "kWh"),
    ("temperature", 1, "°C"),
    ("relative_humidity", 1, "%"),
)


class Screen:
    """Remembers the newest message of every device, and the last lines of the story."""

    def __init__(self) -> None:
        self.newest: dict[str, dict[str, Any]] = {}
        self.verdicts: dict[str, dict[str, Any]] = {}
        self.story: deque[str] = deque(maxlen=9)
        self.late = 0

    def show(self, topic: str, fields: dict[str, Any], _size: int) -> None:
        """A message arrived at the listener."""
        _, _, name = topic.rpartition("/")
        if fields.get("late"):
            self.late += 1
        elif "values" in fields:
            self.newest[name] = fields
        elif "label" in fields:
            self.verdicts[name] = fields

    def draw(self, stage: Stage) -> Group:
        return Group(
            Columns([self._light(stage), self._values(stage), self._counts(stage)]),
            Panel("\n".join(self.story), title="what happens", title_align="left"),
        )

    def _light(self, stage: Stage) -> Panel:
        lamps = stage.status.get("lamps", {})
        text = Text()
        for name, colour in _LAMPS:
            state = lamps.get(name, "off")
            text.append("  ●  " if state != "off" else "  ○  ", style=f"bold {colour}" if state != "off" else "dim")
            text.append(f"{state}\n", style="" if state != "off" else "dim")
        buzzer = lamps.get("buzzer", "off")
        text.append(f"  ♪  {buzzer}", style="bold" if buzzer != "off" else "dim")
        return Panel(text, title="stack light", width=20)

    def _values(self, stage: Stage) -> Table:
        table = Table(title=f"line {stage.status.get('line', '')}", title_justify="left", min_width=60)
        for heading in ("device", "state", "values"):
            table.add_column(heading)
        for name, facts in stage.status.get("devices", {}).items():
            state = facts.get("state", "")
            table.add_row(name, Text(state, style="green" if state == "online" else "red"), self._line(name))
        for name, verdict in self.verdicts.items():
            label = str(verdict.get("label"))
            style = "red" if label == "defect" else "green" if label == "good" else "yellow"
            table.add_row(name, Text(label, style=style), f"by {verdict.get('decided_by')}")
        return table

    def _line(self, name: str) -> str:
        newest = self.newest.get(name, {})
        values = newest.get("values", {})
        shown = [f"{values[key] * factor:.1f} {unit}" for key, factor, unit in _SHOWN if key in values]
        reasons = sorted(set(newest.get("absent", {}).values()))
        return ", ".join(shown[:4]) or (f"absent: {', '.join(reasons)}" if reasons else "…")

    def _counts(self, stage: Stage) -> Table:
        totals = stage.listener.completeness.totals()
        spool = stage.status.get("spool", {})
        table = Table(title="kept and sent", title_justify="left", show_header=False)
        table.add_row("broker", Text("up", style="green") if stage.broker_up else Text("DOWN", style="bold red"))
        table.add_row("recorded", str(stage.status.get("recorded", 0)))
        table.add_row("waiting on disk", str(spool.get("rows", 0)))
        for key in ("messages", "late", "duplicates", "missing"):
            table.add_row(key, str(totals[key]))
        return table
