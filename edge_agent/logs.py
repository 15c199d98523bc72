"""How the product logs: JSON lines for machines, plain words on a terminal, repeats counted.

Import this before anything that imports structlog (the command line does): structlog takes in
rich whenever it can find it, to draw tracebacks that we do not draw, and a daemon that runs for
years should not carry those 4 MB. The rest of the product just says
``log = structlog.get_logger("name")``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from importlib import import_module
from threading import Lock
from typing import Any, TextIO

from edge_agent.clock import NS, Clock, iso


def _structlog_without_rich() -> Any:
    if "structlog" in sys.modules or "rich" in sys.modules:
        return import_module("structlog")
    sys.modules["rich"] = None  # type: ignore[assignment]  # None makes `import rich` fail
    try:
        return import_module("structlog")
    finally:
        del sys.modules["rich"]


structlog = _structlog_without_rich()

Event = MutableMapping[str, Any]

LIMIT = 10  # times a minute that one event about one thing is written
_WINDOW_NS = 60 * NS
_REMEMBERED = 1000  # different events; beyond, the oldest is forgotten
_ABOUT = ("source", "device", "bus", "camera", "worker", "alarm", "output", "broker", "library", "reason")
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # of syslog, for the journal


def configure(clock: Clock, *, level: str = "info", stream: TextIO | None = None, pretty: bool | None = None) -> None:
    """Set up logging for this process; called once, by the command line and by each child process.

    ``level``: debug, info, warning, error or critical. ``stream``: standard error unless given.
    ``pretty``: for people; by default when the stream is a terminal.
    Messages of libraries come in as event ``library``, from warnings on.
    """
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    if pretty is None:
        pretty = stream.isatty()
    structlog.configure(
        processors=[
            Repeats(clock),
            _Stamp(clock),
            structlog.processors.format_exc_info,
            *_renderers(stream, pretty=pretty),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda name="": Lines(name, stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Library()], level=max(number, logging.WARNING), force=True)


def _renderers(stream: TextIO, *, pretty: bool) -> list[Any]:
    if pretty:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain, timestamp_key="ts")]
    render = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    return [_JournalLine(render)] if _is_the_journal(stream) else [render]


class Lines:
    """Writes each line in one piece. A log that cannot be written is no reason to stop."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._stream = stream

    def write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # full disk, closed pipe, closed file
            pass

    debug = info = warning = error = critical = write


@dataclass(slots=True)
class _Count:
    since_ns: int
    passed: int = 0
    held: int = 0


class Repeats:
    """Lets an event about one thing pass LIMIT times a minute; counts the rest and says so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._counts: dict[tuple[str, ...], _Count] = {}

    def __call__(self, logger: Lines, _method: str, event: Event) -> Event:
        key = (logger.name, str(event.get("event")), *(str(event.get(name)) for name in _ABOUT))
        now_ns = self._clock.mono_ns()
        with self._lock:
            count = self._counts.get(key)
            if count is None or now_ns - count.since_ns >= _WINDOW_NS:
                held = count.held if count else 0
                self._counts.pop(key, None)  # back in as the newest
                count = self._counts[key] = _Count(now_ns)
                if len(self._counts) > _REMEMBERED:
                    del self._counts[next(iter(self._counts))]
                if held:
                    event["repeated"] = held
            if count.passed == LIMIT:
                count.held += 1
                raise structlog.DropEvent
            count.passed += 1
            if count.passed == LIMIT:
                event["muted"] = "1min"
        return event


class _Stamp:
    """When, how bad and who: in front, so that lines can be read downwards."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, logger: Lines, method: str, event: Event) -> Event:
        stamp = iso(self._clock.stamp().wall_ms)
        return {"ts": stamp, "level": method, "logger": logger.name, "event": event.pop("event", ""), **event}


class _JournalLine:
    """Puts the priority in front, as sd-daemon(3) has it, so that `journalctl -p warning` works."""

    def __init__(self, render: Any) -> None:
        self._render = render

    def __call__(self, logger: Lines, method: str, event: Event) -> str:
        return f"<{_PRIORITY.get(method, 6)}>{self._render(logger, method, event)}"


def _is_the_journal(stream: TextIO) -> bool:
    """Whether the stream is the one that systemd connected (``JOURNAL_STREAM`` is its device:inode)."""
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


class _Library(logging.Handler):
    """Brings in what libraries say through the standard logging module."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a library's own mistake in its format string
            message = str(record.msg)
        name = record.levelname.lower()
        tell = getattr(structlog.get_logger("library"), name if name in _PRIORITY else "warning")
        tell("library", library=record.name, message=message, exc_info=record.exc_info or None)
