"""What only a GPU can show; elsewhere skipped."""

import copy
from pathlib import Path

import marl_speed
import numpy as np
import pytest
import torch
from savers import RUNTIME, Hook

from algospace import consensus, mappo, market, nets
from algospace.env import TradingEnv
from algospace.marl.params import MARLParams
from algospace.pipeline import stage
from algospace.pipeline.config import load_params

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CONTEXT = 38
PARAMS = Path(__file__).parents[1] / "params.yaml"


def seen(windows, end, direction):
    told = torch.from_numpy(np.random.default_rng(end).normal(size=(1, CONTEXT)).astype(np.float32))
    found = windows.at(torch.tensor([end]), torch.tensor([direction]))
    return found | {"context": told, "account": torch.zeros(1, market.ACCOUNT_FEATURES)}


def test_the_recorded_consensus_is_that_of_the_cpu_at_every_event():
    given, windows = load_params("marl", MARLParams, PARAMS), marl_speed.windows(2000, "cpu")
    teams = [marl_speed.trading_team(given).eval().to(device) for device in ("cpu", "cuda")]
    both = [consensus.passes(team, consensus.masks(team, 0)) for team in teams]
    for end, direction in ((299, 1), (700, -1), (1500, 1), (299, 1)):
        answers = [passes(seen(windows, end, direction)) for passes in both]
        for one, other in zip(*answers, strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


def test_masks_are_the_same_on_any_device():
    seeds = torch.arange(100) * 2**40 - 7
    assert torch.equal(nets.dropout_masks(seeds, 300, 0.2), nets.dropout_masks(seeds.cuda(), 300, 0.2).cpu())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_attention_takes_more_rows_than_a_grid_holds(kind):
    stage.make_deterministic(RUNTIME, 0)
    attention = nets.SelfAttention(8, 2).cuda()
    rows = torch.randn(nets.MOST_ROWS + 3, 5, 8, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16, kind == torch.bfloat16):
        whole, last = attention(rows), attention(rows[-3:])
    torch.testing.assert_close(whole[-3:], last, rtol=0, atol=1e-5 if kind == torch.float32 else 1e-2)
    whole.float().sum().backward()
    assert torch.isfinite(rows.grad).all()


class Killed(Exception):
    pass


def test_a_killed_training_ends_with_the_same_bytes():
    stage.make_deterministic(RUNTIME, 0)
    given = load_params("marl", MARLParams, PARAMS)
    params = given.ppo.model_copy(update={"total_timesteps": 4 * given.ppo.num_envs * given.ppo.num_steps})
    views = marl_speed.windows(marl_speed.WARM_UP + marl_speed.BARS_APART * marl_speed.CANDIDATES, "cuda")

    def trained(on_step=lambda step, snapshot: None, resumed=None):
        made = marl_speed.trading_team(given).cuda()
        world = marl_speed.world(params.num_envs, TradingEnv, views, CONTEXT, "cuda")
        mappo.train(world, made, params, given.critic_dim, "bfloat16", 0, Hook(on_step, resumed))
        return nets.arrays(made)

    saved = {}

    def stop(step, snapshot):
        if step >= 60:
            saved.update(copy.deepcopy(snapshot()), step=step)
            raise Killed

    whole = trained()
    with pytest.raises(Killed):
        trained(stop)
    for other in (trained(), trained(resumed=saved)):
        assert all((whole[name] == other[name]).all() for name in whole)
