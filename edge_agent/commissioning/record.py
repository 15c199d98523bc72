"""What was found at commissioning, written down and signed by this machine, the newest of each device kept."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edge_agent.errors import BundleError, EdgeAgentError
from models.archive import give, replace
from models.keys import Keys, device_key, key_id

KEPT: Final = 20
FOLDER: Final = "calibration"


def folder_of(state_dir: Path) -> Path:
    """Where calibrations live; made if it is not there. Raises EdgeAgentError."""
    folder = state_dir / FOLDER
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, mode=0o750)
            give(folder, folder.parent.stat())
    except OSError as error:
        raise EdgeAgentError(f"cannot make {folder}: {error.strerror}", hint="run it with sudo") from error
    return folder


def body_of(record: Mapping[str, Any]) -> bytes:
    """The bytes that are signed: JSON with sorted keys and no spaces."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write(state_dir: Path, device: str, record: Mapping[str, Any], wall_ms: int) -> Path:
    """Sign and store a record, whole or not at all; the oldest beyond ``KEPT`` go. Raises EdgeAgentError."""
    folder = folder_of(state_dir)
    try:
        key = device_key(state_dir)
        sealed = {
            "record": record,
            "key": key_id(key.public_key()),
            "signature": base64.b64encode(key.sign(body_of(record))).decode(),
        }
        moment = datetime.fromtimestamp(wall_ms / 1000, UTC)
        path = folder / f"{device}.{moment:%Y%m%dT%H%M%S}{wall_ms % 1000:03d}Z.record.json"
        replace(path, json.dumps(sealed, indent=1, ensure_ascii=False).encode() + b"\n")
        for old in sorted(folder.glob(f"{device}.*.record.json"))[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise EdgeAgentError(f"cannot write to {folder}: {error.strerror}", hint="run it with sudo") from error
    return path


def read(path: Path, keys: Keys) -> dict[str, Any]:
    """A record whose signature is right; raises EdgeAgentError for one that was changed or is of somebody else."""
    try:
        sealed = json.loads(path.read_bytes())
        record: dict[str, Any] = sealed["record"]
        keys.check(sealed["key"], body_of(record), base64.b64decode(sealed["signature"], validate=True))
    except BundleError:
        raise
    except OSError as error:
        raise EdgeAgentError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeAgentError(f"{path} is no commissioning record") from error
    return record
