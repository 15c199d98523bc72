"""The far end, one process per file of tests."""

from __future__ import annotations

import pytest

from tests.commissioning.far_ends import Far


@pytest.fixture(scope="module")
def far():
    """A physical model of a three-phase installation."""
    made = Far()
    yield made
    made.end()
