"""Draw the demo's screen as it is during the broker outage: ``python docs/picture.py docs/demo.svg``."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from edge_agent.clock import SystemClock
from edge_agent.demo.screen import Screen
from edge_agent.demo.stage import Stage

SECONDS = 60.0
AT_S = SECONDS * 0.45  # a meter is dead, a bad part was just seen


def main(target: Path) -> None:
    """Perform until the chosen moment, keep that picture, end everything."""
    screen = Screen()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(
            Path(folder), SECONDS, repeat=False, clock=SystemClock(), tell=screen.story.append, show=screen.show
        )

        def draw() -> None:
            if stage.elapsed_s > AT_S:
                stage.stop.set()

        try:
            stage.open()
            stage.play(draw)
            console = Console(record=True, width=118, file=io.StringIO())
            console.print(screen.draw(stage))
            target.write_text(console.export_svg(title="edge-agent demo"), encoding="utf-8")
        finally:
            stage.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
