"""The command ``edge-agent``, also as ``python -m edge_agent``."""

import sys


def run() -> int:
    """The exit code; 130 also when Ctrl-C comes while the command is still being loaded."""
    try:
        from edge_agent.cli import main  # noqa: PLC0415 - half a second of imports

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
