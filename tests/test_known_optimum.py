"""The benchmark of known optima: what is kept, what seeds say together, and a team that learns something of case A."""

import json
import sys

import known_optimum
import numpy as np
import pytest
from _traders import CASES

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_of_the_file_is_not_repeated_and_one_of_other_code_is(monkeypatch, tmp_path, capsys):
    ran = []
    out = tmp_path / "runs"
    monkeypatch.setattr(known_optimum, "trained", lambda case, agents, seed, params: ran.append(seed) or (None, None))
    monkeypatch.setattr(known_optimum, "earned", lambda case, *_: np.array([0.97 * case.optimum]))
    monkeypatch.setattr(known_optimum, "rounded_optimum", lambda case: 1.0)
    argv = ["known_optimum.py", "--json", "--case", "A", "--agents", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", argv)
    shown = []
    for _ in range(2):
        known_optimum.main()
        shown.append(capsys.readouterr().out)
        assert len(ran) == known_optimum.SEEDS
    assert shown[0] == shown[1]
    last = json.loads(shown[0].splitlines()[-1])
    assert (last["seeds"], last["share"], last["interval"]) == (known_optimum.SEEDS, 0.97, [0.97, 0.97])
    monkeypatch.setattr(known_optimum._kept, "code", lambda *own: [out])
    known_optimum.main()
    assert len(ran) == 2 * known_optimum.SEEDS


def test_seeds_together_by_hand():
    found = known_optimum.summary(np.array([0.0, 0.9, 0.9, 0.9]))
    assert found["share"] == 0.9  # without the lowest and the highest
    assert found["interval"][0] < 0.9 <= found["interval"][1]


def test_the_optimum_on_the_grid_is_nearly_the_optimum():
    for case in CASES.values():
        assert 0.9 < known_optimum.rounded_optimum(case) <= 1.01


def test_training_earns_more_than_no_training():
    """A twentieth of the steps, one agent: far from the optimum, and on the way."""
    case = CASES["A"]
    updates = max(1, known_optimum.UPDATES["A"] // 20)
    steps = known_optimum.BASE.num_envs * known_optimum.BASE.num_steps * updates
    params = known_optimum.BASE.model_copy(update={"total_timesteps": steps, **known_optimum.OWN["A"]})
    none = params.model_copy(update={"learning_rate": 1e-12, "total_timesteps": 1})
    learnt, untrained = (known_optimum.share(case, 1, 0, each)["share"] for each in (params, none))
    assert learnt > untrained + 0.2
