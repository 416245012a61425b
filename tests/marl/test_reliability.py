"""What the team's confidence is worth on candidates, and its picture."""

import numpy as np
import pytest
from matplotlib import image

from algospace.calibration import Calibration, reliability
from algospace.env import AGAINST, PASS, WITH
from algospace.marl import exams, pictures

ROW = dict.fromkeys(pictures.CURVES, 0.5)
HISTORIES = {0: [ROW, ROW], 7: [ROW]}


class Outcomes:
    """The only part of candidates that matters here."""

    def __init__(self, net_r):
        self.net_r = net_r


def judged(action, confidence):
    n = len(action)
    return exams.Judged(
        np.array(action), np.zeros(n, int), np.array(confidence), np.zeros(n), np.full(n, 3), np.zeros(n)
    )


def test_the_outcome_is_of_the_side_that_the_confidence_speaks_of():
    net_r = np.full((4, 2, 5), -1.0)
    net_r[0, 0, 0] = net_r[1, 1, 0] = net_r[2, 0, 0] = 1.0  # with, against and (for a pass) with win
    given = exams.worth(judged([WITH, AGAINST, PASS, WITH], [0.5] * 4), Outcomes(net_r), Calibration(1.0, 0.0), 0)
    assert given.counts.tolist() == [4]
    assert given.found.tolist() == [0.75]


def test_the_outcome_is_of_the_entry_after_the_delay():
    net_r = np.full((3, 2, 5), -1.0)
    net_r[0, 0, 3] = net_r[1, 1, 3] = net_r[2, 0, 0] = 1.0
    given = judged([WITH, AGAINST, PASS], [0.5] * 3)._replace(delay=np.full(3, 3))
    assert exams.won(given, Outcomes(net_r)).tolist() == [True] * 3  # a pass waits for nothing


def test_what_is_compared_is_the_calibrated_confidence():
    calibration = Calibration(0.5, -1.0)
    given = exams.worth(judged([WITH] * 3, [0.9] * 3), Outcomes(np.ones((3, 2, 5))), calibration, 0)
    assert given.stated == pytest.approx([calibration(0.9)])


def test_no_candidates_are_no_evidence():
    given = exams.worth(judged([], []), Outcomes(np.zeros((0, 2, 5))), Calibration(1.0, 0.0), 0)
    assert given.ece is None


@pytest.mark.parametrize("n", [0, 40, 800])
def test_the_picture_depends_on_the_data_alone(tmp_path, n):
    rng = np.random.default_rng(0)
    probability = rng.beta(8, 12, n)
    happened = rng.random(n) < probability
    files = [tmp_path / name / "reliability.png" for name in ("a", "b", "other", "marked")]
    for file, seed, mark in zip(files, (0, 0, 1, 0), ("", "", "", "SYNTHETIC DATA"), strict=True):
        pictures.write_all(file.parent, HISTORIES, reliability(probability, happened, seed), mark)
    plain, again, other, marked = (file.read_bytes() for file in files)
    assert plain == again != marked
    assert (plain == other) == (n < 500)  # the floor's seed shows in the text alone
    drawn, watermarked = image.imread(files[0]), image.imread(files[3])
    assert drawn.shape == watermarked.shape
    assert drawn.std() > 0.01
