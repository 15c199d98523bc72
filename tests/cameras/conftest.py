"""What the tests of the cameras share: pictures of a drawn line."""

import pytest

from drivers import opencv
from drivers.cameras.conveyor import Conveyor
from edge_agent.clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(scope="session")
def good_picture():
    """A whole part in the middle of the picture, 640 × 480."""
    return Conveyor((640, 480), 1.0, 0, 1).draw(0.5)


@pytest.fixture(scope="session")
def bad_picture():
    """The same part with a dark spot."""
    return Conveyor((640, 480), 1.0, 1, 1).draw(0.5)


@pytest.fixture(scope="session")
def good_jpeg(good_picture):
    return opencv.encode_jpeg(good_picture)


@pytest.fixture(scope="session")
def bad_jpeg(bad_picture):
    return opencv.encode_jpeg(bad_picture)
