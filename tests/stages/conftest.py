"""Models that fail on purpose, in the processes that judge."""

import json
from pathlib import Path

import pytest

FAULTY = Path(__file__).parents[1] / "peers" / "faulty_models"


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """Every process that judges and is started from here on reads a file: ``faults({"2": "crash"})`` writes it."""
    path = tmp_path_factory.mktemp("faults") / "fault.json"

    def set_(faults):
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(faults))
        fresh.rename(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTY_MODELS", str(path))
        patch.setenv("PYTHONPATH", str(FAULTY))
        yield set_


@pytest.fixture
def fault(faults):
    """Make a version of the model fail, now or while it decides: ``fault({"2": "crash"})``; mended afterwards."""
    faults({})
    yield faults
    faults({})
