"""The first rule."""

import numpy as np
import pytest

from drivers.cameras.conveyor import Conveyor
from edge_agent.camera_settings import RuleSection
from models.dark_spot import DarkSpot, cells, closing

JUDGE = DarkSpot(RuleSection())


@pytest.mark.parametrize("size", [(320, 240), (640, 360), (1280, 720)])
def test_parts_with_a_spot_are_told_from_whole_ones(size):
    """Wherever the part is on the belt, a visible spot is a defect and nothing else is."""
    whole = Conveyor(size, 1.0, 0, 3)
    spotted = Conveyor(size, 1.0, 1, 3)
    for number in range(4):
        for across in np.linspace(0.0, 0.95, 12):
            assert JUDGE.judge(whole.draw(number + across)).label == "good"
        assert JUDGE.judge(spotted.draw(number + 0.5)).label == "defect"


def test_it_says_who_decided_and_where_the_spot_is():
    """A verdict names the rule with its version, the threshold, and the place in pixels."""
    image = np.full((480, 640, 3), 180, np.uint8)
    image[100:112, 300:312] = 20
    said = JUDGE.judge(image)
    assert (said.label, said.threshold, JUDGE.decided_by) == ("defect", 0.15, "rule/dark-spot@1")
    x, y = said.details["at_px"]
    assert abs(x - 306) <= 6
    assert abs(y - 106) <= 6


def test_the_score_is_the_contrast():
    """A spot of 51 grey levels below its surroundings scores 0.2."""
    image = np.full((96, 96, 3), 151, np.uint8)
    image[40:43, 40:43] = 100
    assert JUDGE.judge(image).score == pytest.approx(0.2)


def test_what_is_large_is_no_spot():
    """The belt beside the product is dark and wide."""
    image = np.full((96, 96, 3), 180, np.uint8)
    image[:, :20] = 10
    image[60:68, 50:58] = 10
    assert JUDGE.judge(image).score == 0


def test_the_threshold_is_a_setting():
    """The same picture, another answer."""
    image = np.full((96, 96, 3), 151, np.uint8)
    image[40:43, 40:43] = 100
    assert DarkSpot(RuleSection(threshold=0.25)).judge(image).label == "good"


def test_the_same_picture_always_has_the_same_score(bad_picture):
    """There is nothing random and nothing remembered."""
    assert len({JUDGE.judge(bad_picture).score for _ in range(3)}) == 1


def test_cells_are_means():
    """Each cell is the weighted mean of its pixels, and an incomplete edge is left out."""
    image = np.zeros((5, 7, 3), np.uint8)
    image[:2, :2] = (255, 0, 0)
    image[2:4, 4:6] = 100
    assert cells(image, 2).shape == (2, 3)
    assert cells(image, 2)[0, 0] == pytest.approx(255 * 0.114)
    assert cells(image, 2)[1, 2] == pytest.approx(100)


def test_closing_never_darkens():
    """It fills; what is bright stays."""
    grey = np.random.default_rng(0).uniform(0, 255, (20, 30)).astype(np.float32)
    assert (closing(grey) >= grey).all()
