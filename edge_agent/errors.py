"""What can go wrong, said so that a line engineer knows what to do.

Every error carries a ``hint`` for the human and ``retryable`` for the machine,
and also inherits the builtin that it refines, so that callers need not know us.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class EdgeAgentError(Exception):
    """Root of everything that edge-agent raises on purpose."""

    retryable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a file: where it is, what it is, what would be right."""

    line: int
    path: str
    message: str
    file: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.path, self.message) if part)


class ConfigError(EdgeAgentError, ValueError):
    """A file cannot be used; all its problems at once, in line order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ProfileError(EdgeAgentError, ValueError):
    """A device profile is unknown or wrong."""


class RuleError(EdgeAgentError, ValueError):
    """An alarm rule does not parse, or does not fit the devices that it names."""


class DeviceError(EdgeAgentError, OSError):
    """One device did not give a trustworthy answer; ``reason`` is what readings will say.

    The reasons are those of :mod:`edge_agent.vocabulary`.
    """

    retryable = True

    def __init__(self, reason: str, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or reason, hint=hint)
        self.reason = reason


class WireError(DeviceError):
    """The bus itself is gone (port unplugged, connection lost): every device on it is affected."""


class CameraError(EdgeAgentError, OSError):
    """A camera gave no usable frame; ``reason`` is what the verdict will say."""

    retryable = True

    def __init__(self, reason: str, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or reason, hint=hint)
        self.reason = reason


class PictureError(CameraError):
    """One picture cannot be trusted; the camera itself goes on."""


class OutputError(EdgeAgentError, OSError):
    """An output line could not be claimed or driven."""


class SpoolError(EdgeAgentError, OSError):
    """The database could not take what it was given; the caller still holds it."""

    retryable = True


class SpoolDamageError(SpoolError):
    """A part of the database cannot be read any more; the rest may be."""


class ModelError(EdgeAgentError, ValueError):
    """A model cannot be used, or gave no trustworthy answer this time."""


class BundleError(ModelError):
    """A model bundle is refused before anything in it may decide."""
