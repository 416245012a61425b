import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from algospace import consensus, nets
from algospace.agents import Team
from algospace.consensus import Gate2Params, combine, gate2
from algospace.env import AGAINST, AGENTS, DELAYS, PASS, WITH
from algospace.marl.params import MARLParams
from algospace.pipeline.config import load_params

PARAMS = load_params("marl", MARLParams, Path(__file__).parents[1] / "params.yaml").gate2
WEIGHTS = (0.4, 0.3, 0.3)
TRIPLES = list(product((PASS, WITH, AGAINST), repeat=3))


pytestmark = pytest.mark.usefixtures("one_thread")


def team(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    made = Team(
        AGENTS, 6, (8, 8, 8), 2, 2, 4, 16, dropout, {"structure": 8, "tactical": 7, "arbitrageur": 15}, 9
    ).eval()
    for layer in made.out:
        torch.nn.init.orthogonal_(layer.weight, 1.0)
    return made


def observation(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "structure": (12, 8), "tactical": (15, 7), "side": (9,), "arbitrageur": (20, 15), "context": (1,),
        "account": (5,),
    }  # fmt: skip
    return {name: torch.randn(1, *shape, generator=generator) for name, shape in shapes.items()}


def fifty(made, seen, seed):
    return consensus.combine(*consensus.passes(made, consensus.masks(made, seed))(seen), made.agents, PARAMS)


def passes(votes, confidence=((0.8, 0.3),) * 3, spread=0.0, delays=(0, 1, 2)):
    """Fifty passes in which each agent clearly votes, wants a delay and is confident up to a spread."""
    action = np.full((50, 3, 3), 0.1)
    timing = np.full((50, 3, DELAYS), 0.1)
    for i in range(3):
        action[:, i, votes[i]] = 0.8
        timing[:, i, delays[i]] = 0.6
    sign = np.where(np.arange(50) % 2, 1.0, -1.0)[:, None, None]
    return action, timing, np.array(confidence)[None] + spread * sign


def other_params(**changes):
    return PARAMS.model_copy(update=changes)


# The 50 passes


def watched(made):
    """What a team is asked: the seeds of its masks, the rows of its heads, and of each round of communication."""
    seeds, answers, rounds = [], [], []
    masks, respond = made.masks, made.respond
    made.masks = lambda given: seeds.append(given.clone()) or masks(given)
    made.respond = lambda *given: answers.append(respond(*given)) or answers[-1]
    made.communication.update.register_forward_hook(lambda module, inputs, output: rounds.append(len(inputs[0])))
    return seeds, answers, rounds


def test_exactly_50_passes_in_one_batch():
    made = team()
    seeds, answers, rounds = watched(made)
    fifty(made, observation(), 42)
    assert [len(answer.action) for answer in answers] == [consensus.PASSES]
    assert consensus.PASSES == 50 == nets.INFERENCE_ROWS
    assert [len(given.unique()) for given in seeds] == [50]
    assert rounds == [3 * 50] * 3


def test_the_passes_differ_and_the_masks_do_not_depend_on_the_event():
    made = team()
    seeds, answers, _ = watched(made)
    fifty(made, observation(0), 42)
    fifty(made, observation(1), 42)
    assert torch.equal(seeds[0], seeds[1])
    assert len({tuple(row) for row in answers[0].action.flatten(1).tolist()}) == 50


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_mask_seeds_of_neighbouring_seeds_never_meet(seed):
    seeds = consensus.mask_seeds(seed)
    assert len(seeds) == 50
    other = consensus.mask_seeds(seed - 1 if seed else 1)
    assert not set(seeds.tolist()) & set(other.tolist())


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_same_result_twice_whatever_came_before():
    made = team()
    first = fifty(made, observation(), 42)
    torch.manual_seed(7)
    fifty(made, observation(5), 42)
    state = torch.get_rng_state()
    again = fifty(made, observation(), 42)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, again)
    assert not same(first, fifty(made, observation(), 43))


def test_consensus_leaves_the_team_alone():
    made = team()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    fifty(made, observation(), 42)
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    assert not made.training
    assert all(p.grad is None for p in made.parameters())


def test_consensus_is_the_mean_of_its_passes():
    made, seen = team(), observation()
    found = fifty(made, seen, 42)
    rows = {name: value.repeat(50, *[1] * (value.dim() - 1)) for name, value in seen.items()}
    with torch.no_grad():
        output = made(rows, consensus.mask_seeds(42))
    mean = output.action.softmax(-1).double().mean(0).numpy()
    np.testing.assert_allclose(found.probabilities, mean, rtol=0, atol=1e-7)
    side = 1 if found.action == AGAINST else 0
    wins = output.confidence.sigmoid().double()[:, :, side]
    np.testing.assert_allclose(found.agent_confidence, wins.mean(0), rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.agent_confidence_std, wins.numpy().std(0), rtol=0, atol=1e-7)


def test_without_dropout_nothing_is_epistemic():
    found = fifty(team(dropout=0.0), observation(), 42)
    np.testing.assert_allclose(found.epistemic, 0, atol=1e-6)
    np.testing.assert_allclose(found.agent_confidence_std, 0, atol=1e-6)


# All 27 votes


def majority(votes):
    for action in (PASS, WITH, AGAINST):
        if votes.count(action) >= 2:
            return action, votes.count(action), votes.index(action)
    return PASS, 1, votes.index(PASS)


@pytest.mark.parametrize("votes", TRIPLES)
def test_table_of_27_votes(votes):
    confidence = ((0.9, 0.2), (0.7, 0.4), (0.6, 0.5))
    found = combine(*passes(votes, confidence, spread=0.05, delays=(4, 2, 1)), AGENTS, PARAMS)
    action, count, leader = majority(votes)
    assert found.votes.tolist() == list(votes)
    assert (found.action, found.agreement) == (action, count)
    assert found.delay == (4, 2, 1)[leader]
    side = 1 if action == AGAINST else 0
    c = [pair[side] for pair in confidence]
    agrees = [i for i in range(3) if votes[i] == action]
    weight = sum(WEIGHTS[i] for i in agrees)
    agreed = sum(WEIGHTS[i] * c[i] for i in agrees)
    doubt = 0.5 * 0.05  # every agent's standard deviation is the spread; the weights sum to one
    expected = agreed / weight * (0.85 if count == 2 else 1.0) - doubt
    assert found.confidence == pytest.approx(min(max(expected, 0), 1), abs=1e-12)
    assert found.prd_confidence == pytest.approx(min(max(count / 3 * agreed - doubt, 0), 1), abs=1e-12)
    np.testing.assert_allclose(found.agent_confidence, c)
    np.testing.assert_allclose(found.agent_confidence_std, 0.05)


def test_two_agents_for_either_side_pass_and_both_are_heard():
    given = [part[:, :2] for part in passes((WITH, AGAINST, PASS), ((0.9, 0.2), (0.7, 0.4), (0.6, 0.5)), spread=0.05)]
    found = combine(*given, AGENTS[:2], PARAMS)
    assert (found.action, found.agreement) == (PASS, 0)
    heard = (WEIGHTS[0] * 0.9 + WEIGHTS[1] * 0.7) / (WEIGHTS[0] + WEIGHTS[1])
    assert found.confidence == pytest.approx(heard - 0.5 * 0.05, abs=1e-12)


@pytest.mark.parametrize("votes", TRIPLES)
def test_only_unanimity_can_satisfy_the_brief(votes):
    sure = combine(*passes(votes, ((1.0, 1.0),) * 3), AGENTS, PARAMS)
    assert (sure.prd_confidence >= 0.65) == (len(set(votes)) == 1)
    # While our own formula lets two of three through.
    if sure.agreement == 2:
        assert sure.confidence == pytest.approx(0.85)


def test_confidence_is_cut_to_a_probability():
    assert combine(*passes((1, 1, 1), ((0.1, 0.1),) * 3, spread=0.5), AGENTS, PARAMS).confidence == 0.0
    assert (
        combine(*passes((1, 1, 1), ((1.0, 1.0),) * 3), AGENTS, other_params(uncertainty_penalty=0.0)).confidence == 1.0
    )


def test_votes_are_of_the_mean_not_of_most_passes():
    action, timing, confidence = passes((WITH, WITH, WITH))
    action[:20, 0] = [1.0, 0.0, 0.0]  # 20 passes are sure to pass ...
    action[20:, 0] = [0.45, 0.55, 0.0]  # ... 30 lean to trading
    assert combine(action, timing, confidence, AGENTS, PARAMS).votes.tolist() == [PASS, WITH, WITH]


# Uncertainty


def test_uncertainty_adds_up():
    rng = np.random.default_rng(0)
    for concentration in (0.05, 1.0, 20.0):
        action = rng.dirichlet(np.full(3, concentration), (50, 3))
        found = combine(action, np.full((50, 3, DELAYS), 0.2), rng.random((50, 3, 2)), AGENTS, PARAMS)
        assert (found.epistemic >= 0).all()
        np.testing.assert_allclose(found.total, found.aleatoric + found.epistemic, rtol=0, atol=1e-12)
        assert (found.total <= math.log(3) + 1e-12).all()


def test_uncertainty_by_hand():
    action, timing, confidence = passes((WITH, WITH, WITH))
    action[:25, 0], action[25:, 0] = [1, 0, 0], [0, 1, 0]  # sure each time, and never of the same
    action[:, 1] = [1 / 3] * 3  # always undecided
    action[:, 2] = [0, 0, 1]  # always sure
    found = combine(action, timing, confidence, AGENTS, PARAMS)
    np.testing.assert_allclose(found.total, [math.log(2), math.log(3), 0], atol=1e-9)
    np.testing.assert_allclose(found.aleatoric, [0, math.log(3), 0], atol=1e-9)
    np.testing.assert_allclose(found.epistemic, [math.log(2), 0, 0], atol=1e-9)


# Warnings


@pytest.mark.parametrize(
    ("spread", "warning"),
    [(0.0, "none"), (0.0999, "none"), (0.1001, "elevated"), (0.1999, "elevated"), (0.2001, "high"), (0.5, "high")],
)
@pytest.mark.parametrize("agent", range(3))
@pytest.mark.parametrize("of", ["confidence", "with", "against"])
def test_the_widest_spread_of_any_agent_warns(of, agent, spread, warning):
    action, timing, confidence = passes((WITH, WITH, WITH), ((0.5, 0.5),) * 3)
    sign = np.where(np.arange(50) % 2, 1.0, -1.0)
    if of == "confidence":
        confidence[:, agent, 0] += spread * sign
    else:
        column = 1 if of == "with" else 2
        action[:, agent] = 0.5
        action[:, agent, 0] = 0.0
        action[:, agent, column] += spread * sign
        action[:, agent, 3 - column] -= spread * sign
    found = combine(action, timing, confidence, AGENTS, PARAMS)
    assert found.warning == warning
    expected = np.zeros((3, 3))
    if of != "confidence":
        expected[agent, 1:] = spread
    np.testing.assert_allclose(found.action_std, expected, atol=1e-12)


def test_a_warning_refuses_nothing():
    sure, doubtful = (ask_combined(spread) for spread in (0.0, 0.3))
    assert (sure.warning, doubtful.warning) == ("none", "high")
    assert ask() == gate2(doubtful, 0.5, 0.4, 2, 5, 2.0, 1.5, (), PARAMS) == []


def ask_combined(spread):
    return combine(*passes((WITH, WITH, WITH), spread=spread), AGENTS, PARAMS)


# Gate 2


def ask(votes=(WITH, WITH, WITH), params=PARAMS, **changes):
    good = {
        "probability": 0.5, "break_even": 0.4, "units": 2, "affordable": 5, "reward_risk": 2.0,
        "min_reward_risk": 1.5, "breaches": (),
    }  # fmt: skip
    return gate2(combine(*passes(votes), AGENTS, params), **(good | changes), params=params)


def test_no_reason_means_trade():
    assert ask() == []
    assert ask((WITH, AGAINST, WITH)) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"votes": (PASS, PASS, WITH)}, "consensus: pass"),
        ({"votes": (PASS, PASS, PASS)}, "consensus: pass"),
        ({"votes": (PASS, WITH, AGAINST)}, "consensus: no majority"),
        ({"votes": (AGAINST, AGAINST, WITH)}, "consensus: against the synergy"),
        ({"probability": 0.3999}, "confidence: below break-even"),
        ({"probability": 0.5, "break_even": 0.5001}, "confidence: below break-even"),
        ({"units": 0}, "risk: proposed size is 0"),
        ({"affordable": 0}, "risk: one unit exceeds the limit per trade"),
        ({"reward_risk": 1.4999}, "risk: reward below the limit"),
        ({"breaches": ("drawdown",)}, "limit: drawdown"),
    ],
)
def test_each_reason_alone(changes, reason):
    assert ask(**changes) == [reason]


def test_each_boundary_passes():
    assert ask(probability=0.4, reward_risk=1.5, units=1, affordable=1) == []


def test_the_margin_is_asked_beyond_break_even():
    strict = other_params(margin=0.11)
    assert ask(params=strict) == ["confidence: below break-even"]
    assert ask(params=strict, probability=0.52) == []


def test_reasons_come_in_the_order_of_the_gates():
    reasons = ask(
        (AGAINST, AGAINST, PASS), units=0, affordable=0, reward_risk=1.0, breaches=("session loss", "drawdown")
    )
    assert reasons == [
        "consensus: against the synergy", "risk: proposed size is 0", "risk: reward below the limit",
        "limit: session loss", "limit: drawdown",
    ]  # fmt: skip
    both = ask(probability=0.1, affordable=0)
    assert both == ["confidence: below break-even", "risk: one unit exceeds the limit per trade"]


@pytest.mark.parametrize("what", ["probability", "break_even", "reward_risk"])
def test_what_is_unknown_is_refused(what):
    assert ask(**{what: math.nan}) != []


def test_an_agent_without_weight_is_refused():
    with pytest.raises(ValidationError, match="greater than 0"):
        Gate2Params(vote_weights=(0.5, 0.5, 0.0), split_penalty=0.15, uncertainty_penalty=0.5, margin=0.0)


def test_names_of_the_params():
    assert PARAMS.vote_weights == WEIGHTS
    assert len(PARAMS.vote_weights) == len(AGENTS)
    assert (PARAMS.split_penalty, PARAMS.uncertainty_penalty, PARAMS.margin) == (0.15, 0.5, 0.0)
