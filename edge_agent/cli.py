"""The command line: one verb, one file under ``commands``, imported only when it is used."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from typing import Final

import typer

from edge_agent import logs  # noqa: F401 - first: it keeps rich out of structlog
from edge_agent.errors import ConfigError, EdgeAgentError, Problem
from edge_agent.vocabulary import nearest

# Exit codes that others depend on.
GOOD: Final = 0
WRONG: Final = 1
USAGE: Final = 2
IMPOSSIBLE: Final = 3
INTERRUPTED: Final = 130

# verb → module of edge_agent.commands; each offers ``register(app)``.
VERBS: Final = {
    "run": "run",
    "demo": "demo",
    "check": "check",
    "init": "init",
    "probe": "probe",
    "calibrate": "calibrate",
    "status": "status",
    "alarms": "alarms",
    "listen": "listen",
    "export": "export",
    "judge": "judge",
    "models": "models",
    "outputs": "outputs",
    "train": "train",
    "version": "version",
}


def build(verb: str | None = None) -> typer.Typer:
    """The application with one verb, or with all of them for the overview; raises ConfigError for an unknown one."""
    if verb is not None and verb not in VERBS:
        message = f"edge-agent has no verb {verb!r}{nearest(verb, VERBS)}; it has {', '.join(VERBS)}"
        raise ConfigError([Problem(0, "", message)])
    app = typer.Typer(
        name="edge-agent",
        help="One daemon per production line: meters, climate, cameras and alarms, kept and sent.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def _root() -> None:
        """Verbs below; each has --help with an example."""

    for name, module in VERBS.items():
        if verb in (None, name):
            import_module(f"edge_agent.commands.{module}").register(app)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    verb = arguments[0] if arguments and not arguments[0].startswith("-") else None
    try:
        result = build(verb)(args=arguments, standalone_mode=False, prog_name="edge-agent")
    except ConfigError as error:
        _fail("\n".join(str(problem) for problem in error.problems), arguments, error)
        code = USAGE
    except EdgeAgentError as error:
        _fail(f"edge-agent: {error}", arguments, error)
        code = IMPOSSIBLE
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = WRONG
    except OSError as error:
        _fail(f"edge-agent: {_refusal(error)}", arguments)
        code = IMPOSSIBLE
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except typer.Exit as leave:
        code = int(leave.exit_code)
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the command line
        if show is None:
            raise
        show()
        _fail("", arguments, error)
        code = USAGE
    else:
        code = result if isinstance(result, int) else GOOD
    return code


def _refusal(error: OSError) -> str:
    """What the system refused: a permission, a full disk, a folder that is a file."""
    if isinstance(error, PermissionError):
        return f"not allowed: {error.filename or error} (run it with sudo, or as the user edge-agent)"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _fail(text: str, arguments: list[str], error: Exception | None = None) -> None:
    """To standard error, for people; with ``--json`` also as an object on standard output."""
    if text:
        say(text)
    if "--json" not in arguments:
        return
    format_message = getattr(error, "format_message", None)
    words = format_message() if format_message else text.removeprefix("edge-agent: ")
    answer: dict[str, object] = {"error": words}
    if isinstance(error, ConfigError):
        answer["problems"] = [asdict(problem) for problem in error.problems]
    with contextlib.suppress(OSError):  # nobody reads it
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def say(text: str) -> None:
    """To standard error, for people."""
    sys.stderr.write(text + "\n")
