import copy
import math
from itertools import product
from pathlib import Path

import pytest
import torch
from savers import Hook
from torch import nn

from algospace import agents, mappo, ppo
from algospace.env import DELAYS, vote
from algospace.errors import InputError
from algospace.mappo import PPOParams, TradingLearner
from algospace.marl.params import MARLParams
from algospace.pipeline import training_state
from algospace.pipeline.config import load_params
from algospace.ppo import Rollout, Step

PARAMS = PPOParams(
    num_envs=16,
    num_steps=8,
    total_timesteps=16 * 8 * 4,
    gamma=0.999,
    gae_lambda=0.95,
    learning_rate=0.003,
    anneal_lr=True,
    num_minibatches=4,
    update_epochs=3,
    norm_adv=True,
    clip_coef=0.2,
    clip_vloss=False,
    ent_coef=0.01,
    final_ent_coef=0.01,
    vf_coef=0.5,
    aux_coef=0.5,
    max_grad_norm=0.5,
    target_kl=0.05,
    compile=False,
)

LEARNS = PARAMS.model_copy(
    update={
        "num_envs": 64, "num_steps": 10, "total_timesteps": 64 * 10 * 24, "learning_rate": 0.02,
        "num_minibatches": 2, "update_epochs": 4, "target_kl": 0.2,
    }
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


# Advantages


def rollout_of(rewards, values, next_values, discounts, terminated, truncated):
    """A rollout of one episode slot with only what `gae` reads."""

    def column(x, dtype=torch.float64):
        return torch.tensor(x, dtype=dtype)[:, None]

    ends = (column(x, torch.bool) for x in (terminated, truncated))
    nothing = torch.empty(0)
    return Rollout(
        {}, nothing, nothing, nothing, column(values), column(rewards), column(discounts), *ends, column(next_values)
    )


def test_gae_by_hand_with_an_end_in_the_middle():
    common = ([1.0, 2.0, 3.0], [0.5, 0.4, 0.3], [0.4, 10.0, 0.2], [0.9, 0.8, 0.7])
    last = 3.0 + 0.7 * 0.2 - 0.3
    # The second step ruins the account: nothing comes after it.
    ruined = 2.0 - 0.4
    first = 1.0 + 0.9 * 0.4 - 0.5 + 0.9 * 0.95 * ruined
    advantages, returns = ppo.gae(rollout_of(*common, [0, 1, 0], [0, 0, 0]), 0.95)
    assert advantages[:, 0].tolist() == pytest.approx([first, ruined, last], abs=1e-6)
    assert returns[:, 0].tolist() == pytest.approx([first + 0.5, ruined + 0.4, last + 0.3], abs=1e-6)
    # The second step ends the data: the value of where it led (10) counts, the next episode does not.
    cut = 2.0 + 0.8 * 10.0 - 0.4
    first = 1.0 + 0.9 * 0.4 - 0.5 + 0.9 * 0.95 * cut
    advantages, _ = ppo.gae(rollout_of(*common, [0, 0, 0], [0, 1, 0]), 0.95)
    assert advantages[:, 0].tolist() == pytest.approx([first, cut, last], abs=1e-6)
    # No end: the third step flows back through both.
    middle = cut + 0.8 * 0.95 * last
    first = 1.0 + 0.9 * 0.4 - 0.5 + 0.9 * 0.95 * middle
    advantages, _ = ppo.gae(rollout_of(*common, [0, 0, 0], [0, 0, 0]), 0.95)
    assert advantages[:, 0].tolist() == pytest.approx([first, middle, last], abs=1e-6)


def test_gae_is_the_sum_of_discounted_errors():
    generator = torch.Generator().manual_seed(0)
    steps, slots, lam = 12, 5, 0.9
    rewards, values, next_values = torch.randn(3, steps, slots, generator=generator, dtype=torch.float64)
    discounts = torch.rand(steps, slots, generator=generator, dtype=torch.float64)
    ends = torch.rand(2, steps, slots, generator=generator) < 0.15
    terminated, truncated = ends[0], ends[1] & ~ends[0]
    nothing = torch.empty(0)
    rollout = Rollout({}, nothing, nothing, nothing, values, rewards, discounts, terminated, truncated, next_values)
    advantages, returns = ppo.gae(rollout, lam)
    for slot in range(slots):
        for t in range(steps):
            total, weight = 0.0, 1.0
            for k in range(t, steps):
                bootstrap = 0.0 if terminated[k, slot] else float(discounts[k, slot] * next_values[k, slot])
                total += weight * (float(rewards[k, slot]) + bootstrap - float(values[k, slot]))
                if terminated[k, slot] or truncated[k, slot]:
                    break
                weight *= float(discounts[k, slot]) * lam
            assert advantages[t, slot].item() == pytest.approx(total, abs=1e-9)
    torch.testing.assert_close(returns, advantages + values)


def test_without_discount_and_with_lambda_one_the_return_is_the_sum():
    rollout = rollout_of([1.0, 2.0, 3.0], [0.3, 0.2, 0.1], [0.2, 0.1, 7.0], [1.0] * 3, [0] * 3, [0] * 3)
    assert ppo.gae(rollout, 1.0)[1][:, 0].tolist() == pytest.approx([13.0, 12.0, 10.0])


# The loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "flows"),
    [
        (1.0, 2.0, -2.0, True),
        (1.1, 2.0, -2.2, True),
        (1.5, 2.0, -2.4, False),  # better than thought and taken far more often: clipped at 1.2
        (0.5, 2.0, -1.0, True),
        (1.5, -2.0, 3.0, True),  # worse than thought and taken more often: never clipped
        (0.9, -2.0, 1.8, True),
        (0.5, -2.0, 1.6, False),  # clipped at 0.8
    ],
)
def test_ppo_loss_by_hand(ratio, advantage, loss, flows):
    old = torch.tensor([[-1.3]])
    new = (old + math.log(ratio)).requires_grad_()
    found, diagnostics = ppo.ppo_loss(new, old, torch.tensor([advantage]), 0.2)
    assert found.item() == pytest.approx(loss, abs=1e-6)
    found.backward()
    assert new.grad.item() == pytest.approx(-advantage * ratio if flows else 0.0, abs=1e-6)
    assert diagnostics["losses/approx_kl"].item() == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-6)
    assert diagnostics["losses/clipfrac"].item() == float(abs(ratio - 1) > 0.2)


def test_ppo_loss_is_the_mean_over_batch_and_agents():
    old = torch.zeros(2, 3)
    ratios = torch.tensor([[1.0, 1.1, 1.5], [1.0, 0.9, 0.5]])
    loss, diagnostics = ppo.ppo_loss(ratios.log(), old, torch.tensor([1.0, -1.0]), 0.2)
    assert loss.item() == pytest.approx((-1.0 - 1.1 - 1.2 + 1.0 + 0.9 + 0.8) / 6, abs=1e-6)
    assert diagnostics["losses/clipfrac"].item() == pytest.approx(2 / 6)


# A tiny environment


class Signs:
    """Which side pays is written in the context: with, against or neither. Episodes last five steps."""

    num_envs: int
    device = "cpu"
    length = 5

    def __init__(self, num_envs=16, seed=0, bad=None):
        self.num_envs, self.bad = num_envs, bad
        self.generator = torch.Generator().manual_seed(seed)
        self.time = torch.zeros(num_envs, dtype=torch.int64)
        self.kind = self._draw()
        self.steps = 0

    def _draw(self):
        return torch.randint(0, 3, (self.num_envs,), generator=self.generator)

    def observe(self):
        return {"index": self.kind, "time": self.time}

    def expand(self, observation):
        n = len(observation["index"])
        context = nn.functional.one_hot(observation["index"], 3).float()
        window = torch.zeros(n, 4, 2)
        return {
            "structure": window, "tactical": window, "arbitrageur": window, "side": torch.zeros(n, 1),
            "context": context, "account": (observation["time"] / self.length).float()[:, None],
        }  # fmt: skip

    def pays(self, kind):
        """Reward (n, 2) of with and against."""
        return torch.tensor([[1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])[kind]

    def targets(self, observation):
        return self.pays(observation["index"])

    def step(self, actions):
        winner, _ = vote(actions[..., 0])
        table = torch.cat([torch.zeros(self.num_envs, 1), self.pays(self.kind)], dim=1)
        reward = table.gather(1, winner[:, None])[:, 0]
        self.steps += 1
        if self.bad is not None and self.steps > 10:
            reward[3] = self.bad
        self.time = self.time + 1
        self.kind = self._draw()
        truncated = self.time >= self.length
        final = self.observe()
        self.time = torch.where(truncated, 0, self.time)
        never = torch.zeros_like(truncated)
        return Step(self.observe(), reward, torch.full((self.num_envs,), 0.99), never, truncated, final)

    def state(self):
        return {"kind": self.kind, "time": self.time, "generator": self.generator.get_state()}

    def restore(self, state):
        self.kind, self.time = state["kind"], state["time"]
        self.generator.set_state(state["generator"])


def small_team(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    sizes = {"structure": 2, "tactical": 2, "arbitrageur": 2}
    return agents.Team(tuple(sizes), 4, (4, 4, 4), 1, 1, 4, 16, dropout, sizes, 1)


def train(team, env, params=PARAMS, seed=0, on_step=lambda step, snapshot: None, resumed=None, precision="float32"):
    return mappo.train(env, team, params, 16, precision, seed, Hook(on_step, resumed))


def greedy_reward(team):
    """Mean reward of the most probable actions, over the three kinds; the best is 2/3."""
    env = Signs(3)
    env.kind = torch.arange(3)
    with torch.no_grad():
        output = team(env.expand(env.observe()), None)
    actions = torch.stack([output.action.argmax(-1), output.timing.argmax(-1)], dim=-1)
    return env.step(actions).reward.mean().item()


@pytest.fixture(scope="module")
def trained():
    """A team that has seen 15,000 steps."""
    team = small_team()
    return team, train(team, Signs(64), LEARNS)


def test_it_learns_a_tiny_environment(trained):
    team, (_, history) = trained
    assert greedy_reward(small_team()) < 0.5
    assert greedy_reward(team) == pytest.approx(2 / 3)
    # And with dropout, exploration and all while it trained: more than 95 % of the best.
    late = [row["charts/mean_reward_r"] for row in history[-5:]]
    assert sum(late) / len(late) > 0.95 * 2 / 3
    assert history[-1]["losses/explained_variance"] > 0.3
    assert not team.training


def test_the_auxiliary_heads_learn_what_pays(trained):
    env = Signs()
    seen = env.expand({"index": torch.arange(3), "time": torch.zeros(3, dtype=torch.int64)})
    with torch.no_grad():
        output = trained[0](seen, None)
    wins = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert ((output.confidence.sigmoid() > 0.5).float() == wins[:, None]).all()
    torch.testing.assert_close(output.inefficiency, wins * 2 - 1, atol=0.4, rtol=0)


# Precision and compilation


def test_it_learns_in_bfloat16():
    kinds = set()
    team = small_team()
    for layer in (team.trunks["structure"].convs[0], team.hidden[0]):
        layer.register_forward_hook(lambda module, given, result: kinds.add(result.dtype))
    train(team, Signs(64), LEARNS, precision="bfloat16")
    assert kinds == {torch.bfloat16}
    assert greedy_reward(team) == pytest.approx(2 / 3)
    assert {p.dtype for p in team.parameters()} == {torch.float32}


def judged(learner, env):
    rollout = ppo.collect(env, learner, 2, torch.Generator().manual_seed(0))
    rows = {key: value.flatten(0, 1) for key, value in rollout.observation.items()}
    found = learner.judge(rows, env.expand(rows), rollout.seeds.flatten(), rollout.actions.flatten(0, 1))
    (found.log_probs.mean() + found.values.mean() + found.extra).backward()
    return found, [p.grad.clone() for p in learner.parameters() if p.grad is not None]


@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:`torch.jit")  # of the compiler's own doing
@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-6), ("bfloat16", 1e-5)])
def test_a_compiled_update_means_the_same(precision, rounding, monkeypatch):
    # The backend that follows the graphs without machine code: what it costs is seconds, what it needs no compiler.
    real, compiled = torch.compile, []

    def traced(function, **options):
        compiled.append(function.__name__)
        return real(function, backend="aot_eager", fullgraph=True, **options)

    monkeypatch.setattr(torch, "compile", traced)
    plain, fused = (
        judged(TradingLearner(Signs(), (team := small_team()), team.critic(16), 0.5, precision, compile), Signs())
        for compile in (False, True)
    )
    assert compiled == ["encode", "respond"]
    torch.testing.assert_close(fused[0].log_probs, plain[0].log_probs, atol=rounding, rtol=0)
    assert fused[0].log_probs.dtype == fused[0].values.dtype == torch.float32
    torch.testing.assert_close(fused[1], plain[1], atol=rounding, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # of the compiler's own import
def test_what_is_compiled_is_saved_once():
    team = small_team()
    names = TradingLearner(Signs(), team, team.critic(16), 0.5, compile=True).state_dict()
    assert len(names) == len(team.state_dict()) + len(team.critic(16).state_dict())


def test_compilation_wants_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"marl\.ppo\.compile: expected a C compiler .*found none; set it to false"):
        train(small_team(), Signs(), PARAMS.model_copy(update={"compile": True}))


# Ratio one


@pytest.mark.parametrize("gain", [0.01, 1.0])
def test_the_ratio_is_one_before_the_first_step(gain):
    team, env = small_team(dropout=0.5), Signs()
    for layer in team.out:
        nn.init.orthogonal_(layer.weight, gain)
    critic = team.critic(16)
    rollout = ppo.collect(env, TradingLearner(env, team.train(), critic, 0.5), 8, torch.Generator().manual_seed(0))
    flat = {key: value.flatten(0, 1) for key, value in rollout.observation.items()}
    order = torch.randperm(8 * 16)
    seen = {key: value[order] for key, value in env.expand(flat).items()}
    actions = rollout.actions.flatten(0, 1)[order]

    def worst(seeds):
        log_probs, _ = team(seen, seeds).log_prob_entropy(actions)
        return ((log_probs - rollout.log_probs.flatten(0, 1)[order]).exp() - 1).abs().max().item()

    assert worst(rollout.seeds.flatten()[order]) <= 1e-6
    assert worst(rollout.seeds.flatten()[order].flip(0)) > 1e-4
    assert worst(None) > 1e-4


WIDE = {
    "structure": (48, 8),
    "tactical": (60, 7),
    "arbitrageur": (100, 15),
    "side": (9,),
    "context": (38,),
    "account": (5,),
}


class Wide(Signs):
    """The same with full windows, so that the default networks have something to round."""

    def __init__(self, num_envs):
        super().__init__(num_envs)
        generator = torch.Generator().manual_seed(1)
        self.tables = {name: torch.randn(3, *shape, generator=generator) for name, shape in WIDE.items()}

    def expand(self, observation):
        return {name: table[observation["index"]] for name, table in self.tables.items()}


def test_the_ratio_is_one_in_minibatches_of_the_default_team():
    # A rollout runs 64 rows at a time, the update 256: another batch shape, hence room for other roundings.
    marl = load_params("marl", MARLParams, Path(__file__).parents[1] / "params.yaml")
    torch.manual_seed(0)
    team = agents.Team(
        marl.agents, 43, marl.channels, marl.stride, marl.n_heads, marl.message_dim, marl.head_dim, marl.dropout,
        {"structure": 8, "tactical": 7, "arbitrageur": 15}, 9,
    ).train()  # fmt: skip
    env, critic = Wide(64), team.critic(16)
    rollout = ppo.collect(env, TradingLearner(env, team, critic, 0.5), 6, torch.Generator().manual_seed(0))
    order = torch.randperm(6 * 64)[:256]
    kinds, seeds, actions, old = (
        x.flatten(0, 1)[order]
        for x in (rollout.observation["index"], rollout.seeds, rollout.actions, rollout.log_probs)
    )
    log_probs, _ = team(env.expand({"index": kinds}), seeds).log_prob_entropy(actions)
    assert ((log_probs - old).exp() - 1).abs().max().item() <= 1e-6


def test_seeds_never_repeat():
    env = Signs()
    team = small_team()
    learner = TradingLearner(env, team, team.critic(16), 0.5)
    rollout = ppo.collect(env, learner, 8, torch.Generator().manual_seed(0))
    assert len(rollout.seeds.unique()) == 8 * 16


def test_next_values_are_those_of_where_a_step_led():
    team, env = small_team(dropout=0.0), Signs()
    critic = team.critic(16)
    finals, step = [], env.step

    def spy(actions):
        found = step(actions)
        finals.append(found.final)
        return found

    env.step = spy
    rollout = ppo.collect(env, TradingLearner(env, team, critic, 0.5), 12, torch.Generator().manual_seed(0))
    assert rollout.truncated.sum() == 2 * 16
    with torch.no_grad():
        for t, final in enumerate(finals):
            seen = env.expand(final)
            torch.testing.assert_close(rollout.next_values[t], critic(team(seen, None), seen), atol=1e-5, rtol=1e-5)
            seen = env.expand({key: value[t] for key, value in rollout.observation.items()})
            torch.testing.assert_close(rollout.values[t], critic(team(seen, None), seen), atol=1e-5, rtol=1e-5)
    # A step before a reset leads to another state than the next row holds.
    assert not torch.allclose(rollout.next_values[4], rollout.values[5], atol=1e-4)
    assert torch.equal(rollout.next_values[3], rollout.values[4])


# The loop


def same_run(a, b):
    weights = zip(
        [*a[0].state_dict().values(), *a[1].critic.state_dict().values()],
        [*b[0].state_dict().values(), *b[1].critic.state_dict().values()],
        strict=True,
    )
    return all(torch.equal(x, y) for x, y in weights) and a[1].history == b[1].history


@pytest.fixture(scope="module")
def undisturbed():
    """A run and its state after every update."""
    team, states = small_team(), []

    def keep(step, snapshot):
        states.append(copy.deepcopy({**snapshot(), "step": step}))  # what the saver keeps

    return (team, train(team, Signs(), on_step=keep)), states


@pytest.mark.parametrize("at", range(4))
def test_a_resumed_run_ends_with_the_same_bytes(undisturbed, at):
    straight, states = undisturbed
    other = small_team(seed=9)
    torch.manual_seed(4321)
    steps = []
    again = train(
        other, Signs(seed=5), seed=8, on_step=lambda step, snapshot: steps.append(step),
        resumed=copy.deepcopy(states[at]),
    )  # fmt: skip
    assert same_run((other, again), straight)
    assert steps == [state["step"] for state in states[at + 1 :]]


def test_a_state_survives_the_saver(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(training_state, "SAVE_EVERY", 1)
    saver, updates = training_state.TrainingState(tmp_path), []

    def save_two(step, snapshot):
        updates.append(step)
        if len(updates) <= 2:
            saver(step, snapshot)

    train(small_team(), Signs(), on_step=save_two)
    other = small_team(seed=9)
    again = train(other, Signs(seed=5), seed=8, resumed=training_state.TrainingState(tmp_path).resumed)
    assert same_run((other, again), undisturbed[0])


def test_taking_a_snapshot_changes_nothing(undisturbed):
    team = small_team()
    assert same_run((team, train(team, Signs())), undisturbed[0])


def test_steps_are_optimiser_steps():
    steps = []
    params = PARAMS.model_copy(update={"target_kl": 1e9})
    train(small_team(), Signs(), params, on_step=lambda step, snapshot: steps.append(step))
    assert steps == [12, 24, 36, 48]  # four minibatches in three epochs


def test_the_learning_rate_falls_linearly():
    rates = []

    def keep(step, snapshot):
        rates.append(snapshot()["optimizer"]["param_groups"][0]["lr"])

    train(small_team(), Signs(), on_step=keep)
    assert rates == pytest.approx([0.003, 0.00225, 0.0015, 0.00075])


def test_too_large_a_step_stops_the_update():
    steps = []
    params = PARAMS.model_copy(update={"target_kl": 1e-12})
    train(small_team(), Signs(), params, on_step=lambda step, snapshot: steps.append(step))
    assert steps == [4, 8, 12, 16]


def updated(most):
    """An update by plain descent of a team that has memory for so many rows."""
    env, team = Signs(), small_team()
    learner = TradingLearner(env, team, team.critic(16), 0.5)
    generator = torch.Generator().manual_seed(0)
    rollout = ppo.collect(env, learner, 8, generator)
    update_pass = learner.update_pass

    def crowded(seen, seeds):
        if len(seeds) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return update_pass(seen, seeds)

    learner.update_pass = crowded
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    update = ppo.optimise("marl", env, learner, optimizer, rollout, PARAMS, PARAMS.ent_coef, generator)
    return update, learner.state_dict()


def test_out_of_memory_cuts_the_minibatch_and_means_the_same(capsys):
    (whole, weights), (cut, found) = updated(32), updated(8)
    assert (whole.parts, cut.parts) == (1, 4)
    assert capsys.readouterr().err.splitlines() == [
        "marl: out of memory, going on with 2 parts of a batch",
        "marl: out of memory, going on with 4 parts of a batch",
    ]
    assert cut.steps == whole.steps
    assert cut.diagnostics == pytest.approx(whole.diagnostics, abs=1e-5)
    torch.testing.assert_close(found, weights, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="marl: out of memory with 32 parts of a batch of 32"):
        updated(0)


def test_the_parts_survive_in_the_training_state():
    states = {}
    train(small_team(), Signs(), on_step=lambda step, snapshot: states.update({step: copy.deepcopy(snapshot())}))
    assert {state["parts"] for state in states.values()} == {1}
    resumed = states[min(states)] | {"step": min(states), "parts": 4}
    last = {}
    train(small_team(), Signs(), on_step=lambda step, snapshot: last.update(snapshot()), resumed=resumed)
    assert last["parts"] == 4


def test_every_step_of_the_rollout_is_used_once_an_epoch():
    env, team = Signs(), small_team()
    critic = team.critic(16)
    learner = TradingLearner(env, team, critic, 0.5)
    optimizer = torch.optim.Adam([*team.parameters(), *critic.parameters()], 1e-3)
    generator = torch.Generator().manual_seed(0)
    rollout = ppo.collect(env, learner, 8, generator)
    used, update_pass = [], learner.update_pass
    learner.update_pass = lambda seen, seeds: (used.append(seeds.tolist()), update_pass(seen, seeds))[1]
    params = PARAMS.model_copy(update={"target_kl": 1e9})
    update = ppo.optimise("marl", env, learner, optimizer, rollout, params, params.ent_coef, generator)
    assert update.steps == 12
    assert used.pop() == used[-1], "the last minibatch is judged once more, behind the last step"
    assert [len(batch) for batch in used] == [32] * 12
    for epoch in range(3):
        batches = used[4 * epoch : 4 * epoch + 4]
        assert sorted(s for batch in batches for s in batch) == sorted(rollout.seeds.flatten().tolist())
    assert used[0] != used[4]


# Schedules, and what may be left out


def test_value_loss_by_hand():
    old, returns = torch.ones(5), torch.tensor([2.0, 2.0, 0.0, 1.05, 0.0])
    new = torch.tensor([1.5, 0.9, 1.5, 1.1, 0.5]).requires_grad_()
    plain = ppo.value_loss(new, old, returns, 0.2, False)
    assert plain.item() == pytest.approx((0.25 + 1.21 + 2.25 + 0.0025 + 0.25) / 10, abs=1e-6)
    # A value that nears its return by more than 0.2, up or down, is charged as if by 0.2, and pulled no further.
    clipped = ppo.value_loss(new, old, returns, 0.2, True)
    assert clipped.item() == pytest.approx((0.64 + 1.21 + 2.25 + 0.0025 + 0.64) / 10, abs=1e-6)
    clipped.backward()
    assert new.grad.tolist() == pytest.approx([0.0, -1.1 / 5, 1.5 / 5, 0.05 / 5, 0.0], abs=1e-6)


def spied(monkeypatch, name, at):
    """Values of one argument in every call of a function of `ppo`."""
    found, function = [], getattr(ppo, name)
    monkeypatch.setattr(ppo, name, lambda *arguments: (found.append(arguments[at]), function(*arguments))[1])
    return found


@pytest.mark.parametrize(("final", "expected"), [(0.01, [0.01] * 4), (0.0, [0.01, 0.0075, 0.005, 0.0025])])
def test_the_entropy_coefficient_goes_linearly(final, expected, monkeypatch):
    found = spied(monkeypatch, "optimise", 6)
    train(small_team(), Signs(), PARAMS.model_copy(update={"final_ent_coef": final}))
    assert found == pytest.approx(expected)


def test_the_entropy_coefficient_of_the_update_is_the_one_in_the_loss():
    losses = []
    for ent_coef in (0.0, 10.0):
        env, team = Signs(), small_team()
        learner = TradingLearner(env, team, team.critic(16), 0.5)
        generator = torch.Generator().manual_seed(0)
        rollout = ppo.collect(env, learner, 8, generator)
        optimizer = torch.optim.SGD(learner.parameters(), 0.0)
        loss = []
        step = optimizer.step
        optimizer.step = lambda step=step, loss=loss, head=team.out[0]: (loss.append(head.weight.grad.clone()), step())
        params = PARAMS.model_copy(update={"update_epochs": 1, "max_grad_norm": 1e9})
        ppo.optimise("marl", env, learner, optimizer, rollout, params, ent_coef, generator)
        losses.append(torch.stack(loss))
    assert not torch.allclose(*losses)


def test_without_annealing_the_learning_rate_stays():
    rates = []

    def keep(step, snapshot):
        rates.append(snapshot()["optimizer"]["param_groups"][0]["lr"])

    train(small_team(), Signs(), PARAMS.model_copy(update={"anneal_lr": False}), on_step=keep)
    assert rates == [0.003] * 4


@pytest.mark.parametrize("norm_adv", [True, False])
def test_advantages_are_normalised_on_request(norm_adv, monkeypatch):
    found = spied(monkeypatch, "ppo_loss", 2)
    advantages = spied(monkeypatch, "gae", 0)
    params = PARAMS.model_copy(update={"norm_adv": norm_adv, "update_epochs": 1, "total_timesteps": 16 * 8})
    train(small_team(), Signs(), params)
    batch, raw = torch.cat(found), ppo.gae(advantages[0], params.gae_lambda)[0]
    if norm_adv:
        for minibatch in found:
            assert minibatch.mean().item() == pytest.approx(0.0, abs=1e-6)
            assert minibatch.std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
    else:
        assert torch.equal(batch.sort().values, raw.flatten().sort().values)


def test_a_state_is_saved_every_hundred_steps(tmp_path, monkeypatch):
    # 24 updates of 12 steps; a save falls on the first update boundary 100 steps after the last one, and on the end.
    saver, written = training_state.TrainingState(tmp_path), []
    monkeypatch.setattr(training_state.artefacts, "write_bytes", lambda path, content: written.append(path.name))
    steps = []

    def count(step, snapshot):
        before = len(written)
        saver(step, snapshot)
        steps.extend([step] * (len(written) - before))

    params = PARAMS.model_copy(update={"target_kl": 1e9, "total_timesteps": 16 * 8 * 24})
    train(small_team(), Signs(), params, on_step=count)
    assert steps == [108, 216]


# What it tells


def test_diagnostics(undisturbed):
    history = undisturbed[0][1].history
    assert len(history) == 4
    names = {
        "losses/approx_kl", "losses/clipfrac", "losses/policy_loss", "losses/value_loss", "losses/entropy",
        "losses/auxiliary", "losses/explained_variance", "charts/mean_reward_r",
    }  # fmt: skip
    for row in history:
        assert row.keys() == names
        assert all(math.isfinite(value) for value in row.values())
    most = math.log(3) + 2 / 3 * math.log(DELAYS)
    assert history[0]["losses/entropy"] == pytest.approx(most, abs=0.05)


def test_the_entropy_bonus_keeps_the_policy_open():
    entropies = []
    for ent_coef in (0.0, 10.0):
        team = small_team()
        with torch.no_grad():
            for head in team.out:
                head.bias[1] += 2.0
        update = {"ent_coef": ent_coef, "vf_coef": 0.0, "aux_coef": 0.0, "target_kl": 1e9}
        history = train(team, Signs(), PARAMS.model_copy(update=update)).history
        entropies.append(history[-1]["losses/entropy"])
    assert entropies[1] > entropies[0] + 0.1


def test_another_seed_is_another_run(undisturbed):
    team = small_team()
    assert not same_run((team, train(team, Signs(), seed=1)), undisturbed[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_refused(bad):
    with pytest.raises(InputError, match="marl: expected a finite loss, found"):
        train(small_team(), Signs(bad=bad))


def test_an_update_whose_last_step_went_too_far_is_refused():
    """No loss is looked at behind it: the run would end, and be kept, with a team that says nothing."""
    update = {"learning_rate": 1e8, "update_epochs": 1, "num_minibatches": 1, "max_grad_norm": 1e9}
    steps = []
    for total in (1, 10**6):
        params = PARAMS.model_copy(update=update | {"total_timesteps": total})
        with pytest.raises(InputError, match="marl: expected finite probabilities and values after an update"):
            train(small_team(), Signs(), params, on_step=lambda step, snapshot: steps.append(step))
    assert not steps, "nothing was kept"


def test_a_batch_that_does_not_divide_is_trained_on_whole():
    # 3 x 3 rows in two minibatches of 5 and 4; in 4 of 3, 3 and 3; in 8 of 2, 2, 2, 2 and one.
    for minibatches, steps in ((2, 2), (4, 3), (8, 5)):
        update = {"num_envs": 3, "num_steps": 3, "total_timesteps": 9, "num_minibatches": minibatches}
        seen = []
        params = PARAMS.model_copy(update=update | {"update_epochs": 1})
        train(small_team(), Signs(3), params, on_step=lambda step, snapshot, seen=seen: seen.append(step))
        assert seen == [steps]


def test_the_tiny_environment_is_what_it_says():
    for kind, votes in product(range(3), product(range(3), repeat=3)):
        env = Signs(1)
        env.kind = torch.tensor([kind])
        reward = env.step(torch.tensor([[[v, 0] for v in votes]])).reward.item()
        side = max(set(votes), key=votes.count) if len(set(votes)) < 3 else 0
        expected = 0.0 if side == 0 else (1.0 if side - 1 == kind else -1.0)
        assert reward == expected
