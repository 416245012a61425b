import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from algospace import agents, nets
from algospace.agents import Team, TeamOutput, Trunk
from algospace.env import AGENTS, DELAYS
from algospace.marl.params import MARLParams
from algospace.pipeline.config import load_params
from algospace.teams import Communication

DEFAULT = load_params("marl", MARLParams, Path(__file__).parents[1] / "params.yaml")
FEATURES = {"structure": 8, "tactical": 7, "arbitrageur": 15}
N_CONTEXT = 38 + 5


pytestmark = pytest.mark.usefixtures("one_thread")


def default_team(seed=0, gain=1.0, names=AGENTS):
    """The default sizes; the output layers are made large, so that small differences show."""
    torch.manual_seed(seed)
    team = Team(
        names, N_CONTEXT, DEFAULT.channels, DEFAULT.stride, DEFAULT.n_heads, DEFAULT.message_dim, DEFAULT.head_dim,
        DEFAULT.dropout, FEATURES, 9,
    )  # fmt: skip
    for layer in team.out:
        nn.init.orthogonal_(layer.weight, gain)
    return team


def observation(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "structure": (48, 8), "tactical": (60, 7), "side": (9,), "arbitrageur": (100, 15), "context": (38,),
        "account": (5,),
    }  # fmt: skip
    return {name: torch.randn(n, *shape, generator=generator) for name, shape in shapes.items()}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# The pass


def test_shapes():
    output = default_team()(observation(4), torch.arange(4))
    assert [tuple(x.shape) for x in output] == [(4, 3, 3), (4, 3, DELAYS), (4, 3, 2), (4, 2), (4, 3, 32)]


def test_parameter_count_of_the_default_team():
    team = default_team()
    assert sum(p.numel() for p in team.parameters()) == 55_657
    assert sum(p.numel() for p in team.critic(DEFAULT.critic_dim).parameters()) == 35_073


def test_exactly_three_rounds_of_communication():
    team = default_team()
    calls = []
    team.communication.update.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    for n, seeds in ((4, None), (50, torch.arange(50))):
        calls.clear()
        team(observation(n), seeds)
        assert calls == [3 * n] * 3


def test_communication_is_what_it_says():
    torch.manual_seed(0)
    net = Communication(3, 6, 4, 3)
    nn.init.normal_(net.attention)
    states = torch.randn(5, 3, 6)
    expected = states
    for _ in range(3):
        messages = [net.message(expected[:, j]) for j in range(3)]
        weights = net.attention.softmax(dim=1)
        expected = torch.stack(
            [
                net.update(torch.cat([weights[i, j] * messages[j] for j in range(3)], dim=1), expected[:, i])
                for i in range(3)
            ],
            dim=1,
        )
    torch.testing.assert_close(net(states), expected)


@pytest.mark.parametrize("changed", [*AGENTS, "side"])
def test_every_agent_hears_every_other(changed):
    team, seen = default_team(), observation(4)
    before = team(seen, None)
    after = team(seen | {changed: seen[changed] + 1}, None)
    for i, name in enumerate(AGENTS):
        for part in ("action", "timing", "confidence"):
            difference = (getattr(after, part) - getattr(before, part))[:, i].abs().amax(dim=1)
            assert (difference > 1e-5).all(), f"{name} does not hear {changed} in its {part}"
    assert ((after.inefficiency - before.inefficiency).abs().amax(dim=1) > 1e-5).all()


@pytest.mark.parametrize("changed", ["context", "account"])
def test_every_agent_knows_context_and_account(changed):
    team, seen = default_team(), observation(4)
    before, after = team(seen, None), team(seen | {changed: seen[changed] + 1}, None)
    assert ((after.action - before.action).abs().amax(dim=2) > 1e-5).all()
    assert torch.equal(after.states, before.states)


@pytest.mark.parametrize("speaker", range(3))
def test_gradient_reaches_every_trunk(speaker):
    team = default_team()
    team(observation(8), torch.arange(8)).action[:, speaker].square().sum().backward()
    for name in AGENTS:
        for label, weight in team.trunks[name].named_parameters():
            assert torch.isfinite(weight.grad).all(), f"{name}.{label}"
            assert weight.grad.abs().sum() > 0, f"{name}.{label}"
    assert team.communication.attention.grad.abs().sum() > 0
    assert team.join_side.weight.grad.abs().sum() > 0


def test_every_weight_is_trained():
    team, seen = default_team(), observation(8)
    output = team(seen, torch.arange(8))
    log_prob, entropy = output.log_prob_entropy(torch.ones(8, 3, 2, dtype=torch.int64))
    (log_prob.sum() + entropy.sum() + agents.auxiliary_loss(output, torch.randn(8, 2))).backward()
    assert [name for name, p in team.named_parameters() if p.grad is None] == []


def test_a_row_does_not_see_its_neighbours():
    team, seen = default_team(), observation(6)
    before = team(seen, torch.arange(6))
    other = {name: value.clone() for name, value in seen.items()}
    for value in other.values():
        value[:3], value[4:] = 100.0, -100.0
    after = team(other, torch.tensor([9, 9, 9, 3, 9, 9]))
    assert all(torch.equal(a[3], b[3]) for a, b in zip(before, after, strict=True))


def test_no_statistic_of_a_batch_and_no_unseeded_dropout():
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.MultiheadAttention)
    assert not [m for m in default_team().modules() if isinstance(m, kinds)]
    assert {name for name, _ in default_team().named_buffers()} == {"center", "scale"}  # of the context, set once


def test_a_trunk_is_a_function_of_the_order_of_its_rows():
    torch.manual_seed(0)
    trunk = Trunk(8, (4, 8, 8), 2, 2)
    x = torch.randn(3, 48, 8)
    assert torch.equal(trunk(x), trunk(x))
    assert trunk(x).shape == (3, 8)
    assert not torch.allclose(trunk(x), trunk(x.flip(1)), atol=1e-4)


def test_a_trunk_is_what_it_says():
    torch.manual_seed(0)
    trunk, x = Trunk(5, (4, 8, 8), 2, 2), torch.randn(3, 20, 5)
    h = x.transpose(1, 2)
    for i, stride in enumerate((1, 2, 2)):
        conv, norm = trunk.convs[i], trunk.norms[i]
        h = nn.functional.conv1d(h, conv.weight, conv.bias, stride=stride, padding=1)
        # Every row is normalised by its own mean and deviation, over channels and time.
        h = (h - h.mean((1, 2), keepdim=True)) / (h.var((1, 2), correction=0, keepdim=True) + 1e-5).sqrt()
        h = (h * norm.weight[:, None] + norm.bias[:, None]).clamp(min=0)
    h = h.transpose(1, 2)
    assert h.shape == (3, 5, 8)
    attended = trunk.attention(h)
    torch.testing.assert_close(trunk(x), trunk.norm(h + attended).mean(dim=1), atol=1e-5, rtol=1e-5)


def test_the_context_is_scaled_to_the_rows_that_train_and_the_account_is_not():
    team, seen = default_team(), observation(6)
    rows = 3.0 + 2.0 * torch.randn(500, 38, generator=torch.Generator().manual_seed(1))
    rows[:, 5] = 7.0  # constant
    team.scale_to(rows)
    seen["context"] = rows[:6].clone()
    seen["context"][0, 0] = 1e6
    _, context = team.encode(seen)
    expected = (rows[:6] - rows.mean(0)) / rows.std(0).clamp(min=1e-9)
    expected[:, 5], expected[0, 0] = 0.0, 5.0
    torch.testing.assert_close(context[:, :38], expected.clamp(-5, 5))
    assert torch.equal(context[:, 38:], seen["account"].clamp(-5, 5))


# Dropout


def test_same_seeds_same_bits():
    team, seen, seeds = default_team(), observation(50), torch.arange(50) * 7919
    first = team(seen, seeds)
    torch.manual_seed(555)
    assert same(team(seen, seeds), first)
    order = torch.randperm(50)
    again = team({name: value[order] for name, value in seen.items()}, seeds[order])
    assert same(again, [x[order] for x in first])


def test_other_seeds_other_outputs():
    team, seen = default_team(), observation(50)
    one = {name: value[:1].expand(50, *value.shape[1:]) for name, value in seen.items()}
    output = team(one, torch.arange(50))
    assert len({tuple(row) for row in output.action.flatten(1).tolist()}) == 50
    plain = team(one, None)
    assert torch.allclose(plain.action, plain.action[:1].expand_as(plain.action), atol=1e-5)


def test_masks_are_laid_on_every_state_and_head():
    team, seen = default_team(), observation(1)
    drawn = team.masks(torch.tensor([5]))
    heard, heads = [], []
    team.communication.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0][0]))
    for layer in team.out:
        layer.register_forward_pre_hook(lambda module, inputs: heads.append(inputs[0]))
    team(seen, torch.tensor([5]))
    team(seen, None)
    for i in range(3):
        assert torch.equal(heard[0][i], heard[1][i] * drawn[2 * i][0])
        assert (heads[i][drawn[2 * i + 1] == 0] == 0).all()
        assert (heads[i] != 0).any()
    assert len({tuple(mask[0].tolist()) for mask in drawn}) == 6


def test_many_passes_over_one_row_need_its_trunks_once():
    team, seen, seeds = default_team(), observation(1), torch.arange(50)
    calls = []
    for trunk in team.trunks.values():
        trunk.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    states, context = team.encode(seen)
    once = team.respond(states.expand(50, -1, -1), context.expand(50, -1), team.masks(seeds))
    assert calls == [1, 1, 1]
    copies = team({name: value.expand(50, *value.shape[1:]) for name, value in seen.items()}, seeds)
    for a, b in zip(once, copies, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_of_zero_is_none():
    team, seen = default_team(), observation(4)
    team.p = 0.0
    torch.testing.assert_close(team(seen, torch.arange(4)), team(seen, None))


def test_a_loaded_team_gives_the_same_bits():
    team = default_team().eval()
    loaded = agents.load(nets.arrays(team), json.loads(json.dumps(team.config)))
    seen, seeds = observation(50), torch.arange(50)
    with torch.no_grad():
        assert same(loaded(seen, seeds), team(seen, seeds))
    assert not any(p.requires_grad for p in loaded.parameters())


# The critic


def test_the_critic_does_not_train_the_actors():
    torch.manual_seed(0)
    team, seen = default_team(), observation(4)
    critic = team.critic(16)
    value = critic(team(seen, torch.arange(4)), seen)
    assert value.shape == (4,)
    value.sum().backward()
    assert all(p.grad is None for p in team.parameters())
    assert all(p.grad is not None for p in critic.parameters())


@pytest.mark.parametrize("changed", [*AGENTS, "context", "account"])
def test_the_critic_sees_everything(changed):
    torch.manual_seed(0)
    team, seen = default_team(), observation(4)
    critic, other = team.critic(16), seen | {changed: seen[changed] + 1}
    assert ((critic(team(other, None), other) - critic(team(seen, None), seen)).abs() > 1e-5).all()


# Actions


def output_of(action, timing, confidence=None, inefficiency=None):
    """An output from probabilities (agents, 3) and (agents, delays)."""
    action, timing = torch.tensor(action)[None], torch.tensor(timing)[None]
    confidence = torch.zeros(1, len(action[0]), 2) if confidence is None else torch.tensor(confidence)[None]
    inefficiency = torch.zeros(1, 2) if inefficiency is None else torch.tensor(inefficiency)[None]
    return TeamOutput(action.log() + 3.0, timing.log() - 2.0, confidence, inefficiency, torch.zeros(1, 3, 2))


VOTES = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]
DELAY = [[0.4, 0.3, 0.1, 0.1, 0.1], [0.2] * 5, [0.05, 0.05, 0.1, 0.3, 0.5]]


def test_log_prob_by_hand():
    output = output_of(VOTES, DELAY)
    log_prob, _ = output.log_prob_entropy(torch.tensor([[[0, 3], [1, 2], [2, 4]]]))
    # The first agent passes: its delay is no part of what it did.
    expected = [math.log(0.5), math.log(0.6 * 0.2), math.log(0.6 * 0.5)]
    assert log_prob[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_delay_of_a_pass_does_not_count():
    output = output_of(VOTES, DELAY)
    probs = [
        output.log_prob_entropy(torch.tensor([[[vote, delay]] * 3]))[0] for vote in (0, 1) for delay in range(DELAYS)
    ]
    assert all(torch.equal(p, probs[0]) for p in probs[:DELAYS])
    assert len({p[0, 0].item() for p in probs[DELAYS:]}) > 1


def test_entropy_by_hand():
    _, entropy = output_of(VOTES, DELAY).log_prob_entropy(torch.zeros(1, 3, 2, dtype=torch.int64))

    def h(p):
        return -sum(x * math.log(x) for x in p)

    expected = [h(v) + (1 - v[0]) * h(d) for v, d in zip(VOTES, DELAY, strict=True)]
    assert entropy[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_entropy_is_that_of_the_distribution_over_what_is_done():
    # Everything an agent can do: pass, or one of two sides at one of five delays.
    output = output_of(VOTES, DELAY)
    for i in range(3):
        everything = [(0, 0), *((side, delay) for side in (1, 2) for delay in range(DELAYS))]
        actions = torch.tensor([[[side, delay]] * 3 for side, delay in everything])
        many = TeamOutput(*(x.expand(len(everything), *x.shape[1:]) for x in output))
        log_prob, entropy = many.log_prob_entropy(actions)
        p = log_prob[:, i].exp()
        assert p.sum().item() == pytest.approx(1.0, abs=1e-6)
        assert entropy[0, i].item() == pytest.approx(-(p * log_prob[:, i]).sum().item(), abs=1e-6)


def test_sampling_follows_the_probabilities():
    n = 40_000
    output = output_of(VOTES, DELAY)
    many = TeamOutput(*(x.expand(n, *x.shape[1:]) for x in output))
    drawn = many.sample(torch.Generator().manual_seed(0))
    assert drawn.shape == (n, 3, 2)
    for i in range(3):
        for part, probabilities in ((0, VOTES[i]), (1, DELAY[i])):
            for value, p in enumerate(probabilities):
                share = (drawn[:, i, part] == value).double().mean().item()
                assert share == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / n))
    assert torch.equal(many.sample(torch.Generator().manual_seed(0)), drawn)
    assert not torch.equal(many.sample(torch.Generator().manual_seed(1)), drawn)


def test_agents_draw_independently():
    n = 40_000
    output = output_of([[0.5, 0.5, 1e-9]] * 3, [[0.2] * 5] * 3)
    many = TeamOutput(*(x.expand(n, *x.shape[1:]) for x in output))
    votes = many.sample(torch.Generator().manual_seed(0))[..., 0].double() * 2 - 1
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs((votes[:, i] * votes[:, j]).mean()) < 4 / math.sqrt(n)


def test_auxiliary_loss_by_hand():
    confidence = [[0.0, math.log(3.0)], [0.0, 0.0], [math.log(3.0), 0.0]]
    output = output_of(VOTES, DELAY, confidence, [0.5, 0.0])
    # With the signal wins 1.5 R, against it loses 1 R.
    loss = agents.auxiliary_loss(output, torch.tensor([[1.5, -1.0]]))
    entropies = [math.log(2), math.log(4), math.log(2), math.log(2), -math.log(0.75), math.log(2)]
    expected = sum(entropies) / 6 + 0.1 * ((0.5 - 1.5) ** 2 + 1.0) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_net_result_of_zero_is_no_win():
    output = output_of(VOTES, DELAY, [[2.0, -1.0]] * 3, [0.0, 0.0])
    zero = agents.auxiliary_loss(output, torch.zeros(1, 2))
    assert zero.item() == pytest.approx((math.log1p(math.exp(2)) + math.log1p(math.exp(-1))) / 2, abs=1e-6)
