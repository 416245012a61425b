"""One account over a stretch of time: a trade at a time, limits, the training rule; by hand and by brute force."""

import numpy as np
import pytest
import torch

from algospace.env import AGAINST, PASS, WITH
from algospace.marl import engine, passage


def test_it_is_what_a_loop_over_the_candidates_says(made, settings):
    """No limit is met here: the account of one unit is large."""
    given = made(150, seed=3, hold=20)
    rng = np.random.default_rng(0)
    rules = [(rng.choice([PASS, WITH, AGAINST], 150), rng.integers(0, 5, 150)) for _ in range(6)]
    limits = settings.market.limits.model_copy(
        update={"max_session_trades": 99, "max_losing_streak": 99, "max_session_loss": 0.9, "max_drawdown": 0.9}
    )
    free = settings._replace(market=settings.market.model_copy(update={"limits": limits}))
    found = passage.by_rules(given, rules, free)
    for k, (votes, delays) in enumerate(rules):
        net_r, flat = np.zeros(150), -1
        for i in range(149):
            if given.candidates.row[i] >= flat and votes[i] != PASS:
                net_r[i] = given.candidates.net_r[i, votes[i] - 1, delays[i]]
                flat = given.candidates.exit_row[i, votes[i] - 1, delays[i]]
        np.testing.assert_allclose(found.net_r[k], net_r, atol=1e-6)
        assert (found.traded[k] == (net_r != 0)).all()


def test_limits_of_a_session_hold_and_end_with_it(made, settings):
    given = made(40)
    limits = settings.market.limits.model_copy(update={"max_session_trades": 2, "max_losing_streak": 99})
    strict = settings._replace(market=settings.market.model_copy(update={"limits": limits}))
    (traded,) = passage.by_rules(given, [(np.full(40, WITH), np.zeros(40, int))], strict).traded
    assert [traded[k : k + 10].sum() for k in range(0, 40, 10)] == [2] * 4


def test_ruin_ends_the_pass(made, settings):
    given = made(60)
    given.candidates.net_r[:] = -1.0
    limits = settings.market.limits.model_copy(update={"max_drawdown": 1e-9})
    frail = settings._replace(market=settings.market.model_copy(update={"limits": limits}))
    (traded,) = passage.by_rules(given, [(np.full(60, WITH), np.zeros(60, int))], frail).traded
    assert np.flatnonzero(traded).tolist() == [0]


def test_a_pass_knows_nothing_of_what_comes(made, settings):
    """What later candidates are changes nothing of what was traded before."""
    given = made(80)
    rule = [(np.tile([WITH, PASS, AGAINST, WITH], 20), np.zeros(80, int))]
    before = passage.by_rules(given, rule, settings)
    given.candidates.net_r[40:] *= -3.0
    after = passage.by_rules(given, rule, settings)
    np.testing.assert_array_equal(before.net_r[:, :40], after.net_r[:, :40])


def test_sampling_is_seeded_and_passes_differ(made, params, settings):
    given = made(40)
    team = engine.new_team(params(), given.candidates.context, given.candidates.net_r[:, :, 0], 0)
    state = torch.get_rng_state()
    one, again = (passage.by_sampling(team, given, 3, settings) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(one.net_r, again.net_r)
    assert not (one.net_r[0] == one.net_r[1]).all()
    assert one.traded.shape == (3, 40)
    assert one.traded.any(axis=1).all()


def test_a_team_that_is_sure_samples_what_it_would_take(made, params, settings):
    given = made(40)
    team = engine.new_team(params(), given.candidates.context, given.candidates.net_r[:, :, 0], 0)
    with torch.no_grad():
        for head in team.out:
            head.bias[WITH] += 50.0
            head.bias[3] += 50.0  # no delay
    drawn = passage.by_sampling(team, given, 2, settings)
    ruled = passage.by_rules(given, [(np.full(40, WITH), np.zeros(40, int))], settings)
    assert drawn.net_r[0] == pytest.approx(ruled.net_r[0])
    assert drawn.net_r[1] == pytest.approx(ruled.net_r[0])
