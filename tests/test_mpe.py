"""The vectorised copy of three tasks of MPE is mpe2's; its environment is one that a team can learn in."""

import importlib
import sys

import _particles
import mpe
import numpy as np
import pytest
import torch
from _particles import EPISODE, TASKS, ParticleEnv, Shared, State

pytestmark = pytest.mark.usefixtures("one_thread")

EPISODES = 40  # 1,000 steps


def played(name):
    """Episodes of random actions in mpe2: states and views (one more than steps), actions and rewards, time first."""
    pytest.importorskip("mpe2", reason="mpe2 is in the dev extra")
    task, rng = TASKS[name], np.random.default_rng(0)
    env = importlib.import_module(f"mpe2.{name}").parallel_env(max_cycles=EPISODE)
    world = env.unwrapped.world
    episodes = []
    for seed in range(EPISODES):
        views, _ = env.reset(seed=seed)
        wanted = [getattr(agent, "_goal_b", None) for agent in world.agents]
        goals = [0 if landmark is None else world.landmarks.index(landmark) for landmark in wanted]
        states, seen, actions, rewards = [world_state(world, goals)], [views], [], []
        while env.agents:
            chosen = {agent: int(rng.integers(n)) for agent, n in task.actions().items()}
            views, reward, _, truncated, _ = env.step(chosen)
            states.append(world_state(world, goals))
            seen.append(views)
            actions.append(list(chosen.values()))
            rewards.append(sum(reward.values()))
            assert all(truncated.values()) == (len(actions) == EPISODE)
        episodes.append((states, seen, actions, rewards))
    states, seen, actions, rewards = zip(*episodes, strict=True)

    def batch(rows):
        return torch.from_numpy(np.stack(rows))

    return (
        [State(*(batch(entry) for entry in zip(*now, strict=True))) for now in zip(*states, strict=True)],
        [{name: batch([views[name] for views in now]) for name in task.features} for now in zip(*seen, strict=True)],
        torch.tensor(actions).transpose(0, 1),
        torch.tensor(rewards, dtype=torch.float64).T,
    )


def world_state(world, goals):
    agents = [agent.state for agent in world.agents]
    return (
        np.stack([agent.p_pos for agent in agents]), np.stack([agent.p_vel for agent in agents]),
        np.stack([landmark.state.p_pos for landmark in world.landmarks]), np.array(goals),
        np.stack([agent.c for agent in agents]),
    )  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_a_thousand_random_steps_are_those_of_mpe2(name):
    task = TASKS[name]
    states, seen, actions, rewards = played(name)
    assert actions.shape[:2] == (EPISODE, EPISODES)
    now = states[0]
    for t in range(EPISODE + 1):
        for ours, theirs in zip(now, states[t], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
        views = dict(zip(task.features, task.views(now), strict=True))
        assert {k: v.shape[1] for k, v in views.items()} == task.features
        for agent, view in views.items():
            torch.testing.assert_close(view.float(), seen[t][agent], rtol=1e-6, atol=1e-6)
        if t < EPISODE:
            now = task.step(now, actions[t])
            torch.testing.assert_close(task.reward(now), rewards[t], rtol=0, atol=1e-9)


def test_contacts_happen_in_those_steps():
    states, _, _, _ = played("simple_spread_v3")
    position = torch.cat([state.position for state in states])
    assert (_particles.contact(position, 0.3).norm(dim=-1) > 1.0).sum() > 100


@pytest.mark.parametrize("name", TASKS)
def test_episodes_are_cut_after_25_steps_and_begin_anew(name):
    task = TASKS[name]
    env = ParticleEnv(task, 64, 0.9, 2.0, 0)
    n_actions = torch.tensor(list(task.actions().values()))
    since = torch.full((64,), -1)  # steps since the beginning; the first episodes begin anywhere
    for _ in range(3 * EPISODE):
        before = env.now
        actions = (torch.rand(64, len(n_actions)) * n_actions).long()
        step = env.step(actions)
        led = task.step(before, actions)
        torch.testing.assert_close(step.reward, task.reward(led) / 2.0)
        for ours, theirs in zip(step.final.values(), task.views(led), strict=True):
            torch.testing.assert_close(ours, theirs)
        ended = step.truncated
        since = torch.where(since >= 0, since + 1, since)
        assert not step.terminated.any()
        assert torch.equal(ended[since >= 0], (since == EPISODE)[since >= 0])
        assert (env.now.velocity[ended] == 0).all()
        assert (env.now.said[ended] == 0).all()
        assert torch.equal(env.now.position[~ended], led.position[~ended])
        assert (env.now.position[ended] != led.position[ended]).all()
        since = torch.where(ended, 0, since)
    assert (since >= 0).all()


def test_starts_are_even_over_the_square_and_the_landmarks():
    state = TASKS["simple_reference_v3"].start(20_000, torch.Generator().manual_seed(0))
    for places in (state.position, state.landmarks):
        assert places.abs().max() < 1.0
        assert places.mean().abs() < 0.01
        assert places.var().item() == pytest.approx(1 / 3, rel=0.02)
    counts = torch.bincount(3 * state.goals[:, 0] + state.goals[:, 1], minlength=9)
    assert ((counts / 20_000 - 1 / 9).abs() < 0.01).all()


def test_a_shared_row_is_an_agents():
    task = TASKS["simple_spread_v3"]
    env, alone = (ParticleEnv(task, 8, 0.9, 1.0, 0) for _ in range(2))
    rows = Shared(env)
    for _ in range(EPISODE):
        actions = torch.randint(rows.actions, (8, 3))
        step, expected = rows.step(actions.reshape(-1, 1)), alone.step(actions)
        for i, (views, final) in enumerate(zip(expected.observation.values(), expected.final.values(), strict=True)):
            assert torch.equal(step.observation[Shared.AGENT][i::3], views)
            assert torch.equal(step.final[Shared.AGENT][i::3], final)
            assert torch.equal(step.observation[Shared.TEAM][i::3], torch.cat([*expected.observation.values()], dim=1))
            for name in ("reward", "discount", "terminated", "truncated"):
                assert torch.equal(getattr(step, name)[i::3], getattr(expected, name))


@pytest.mark.parametrize("wrap", [lambda env: env, Shared])
def test_a_restored_environment_goes_on_with_the_same_bits(wrap):
    def make(seed):
        return wrap(ParticleEnv(TASKS["simple_spread_v3"], 8, 0.9, 1.0, seed))

    def go_on(env):
        actions = torch.ones(env.num_envs, 24 // env.num_envs, dtype=torch.int64)
        return torch.cat([env.step(actions).reward for _ in range(2 * EPISODE)])

    env, other = make(0), make(1)
    env.step(torch.ones(env.num_envs, 24 // env.num_envs, dtype=torch.int64))
    other.restore(env.state())
    assert torch.equal(go_on(env), go_on(other))


def test_scripted_policies_return_what_is_known():
    pytest.importorskip("mpe2", reason="mpe2 is in the dev extra")
    found = {k: mpe.returns(mpe.SPREAD, policy, 60) for k, policy in mpe.scripts(mpe.SPREAD).items()}
    for script, known in (("random", -81.5), ("nothing", -75.6), ("scripted", -24.5)):
        error = found[script].std(ddof=1) / 60**0.5
        assert abs(found[script].mean() - known) < 3 * error + 0.5
    for name in (mpe.LISTENER, mpe.REFERENCE):
        told, untold, drawn = (mpe.returns(name, mpe.scripts(name)[k], 30).mean() for k in ("told", "untold", "random"))
        assert told > untold + 10 > drawn + 20


@pytest.mark.parametrize(("name", "rounds"), [("simple_spread_v3", 0), ("simple_reference_v3", 3)])
def test_a_short_training_beats_chance(monkeypatch, name, rounds):
    def step(env, actions):
        steps.append(env.num_envs)
        return one_step(env, actions)

    pytest.importorskip("mpe2", reason="mpe2 is in the dev extra")
    steps, one_step = [], ParticleEnv.step
    monkeypatch.setattr(ParticleEnv, "step", step)
    params = mpe.SETTINGS[name].params.model_copy(update={"total_timesteps": 256 * 25 * 10})
    found = mpe.run(name, rounds, 0, params, 20)
    still = mpe.returns(name, lambda views: dict.fromkeys(views, 0), 20).mean()
    assert found["return"] > still + 5
    assert sum(steps) == params.total_timesteps  # whatever number of rows an episode has


def test_a_run_found_in_the_file_is_not_repeated(monkeypatch, tmp_path, capsys):
    def run(name, rounds, seed, params, episodes):
        ran.append((name, rounds, seed))
        return {"return": float(rounds + seed % 7), "score": 0.5, "seconds": 1, "steps_per_second": 1}

    monkeypatch.setattr(mpe, "run", run)
    monkeypatch.setattr(mpe, "returns", lambda name, policy, episodes: np.zeros(episodes))
    monkeypatch.setattr(mpe, "copy_speed", lambda name, num_envs: 1.0)
    monkeypatch.setattr(sys, "argv", ["mpe.py", "--json", "--out", str(tmp_path / "runs")])
    ran, shown = [], []
    for _ in range(2):
        mpe.main()
        shown.append(capsys.readouterr().out)
        assert len(ran) == len(set(ran)) == 5 * (1 + 3 + 3)
    assert shown[0] == shown[1]
    monkeypatch.setattr(mpe._kept, "code", lambda *own: [tmp_path / "runs"])
    mpe.main()
    assert len(ran) == 2 * len(set(ran)), "of other code they are run again"


def test_what_the_seeds_say_together_by_hand():
    # Without the lowest and the highest of five; in 97.5 % of the resamples the one comes up three times or less.
    assert mpe.quartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 100.0]))[0] == 2.0
    assert mpe.quartile_mean(np.array([0.0, 0.0, 0.0, 0.0, 1.0])) == (0.0, [0.0, 0.6667])
    assert mpe.mean_interval(np.array([1.0, 2.0, 3.0])) == [-0.48, 4.48]  # 2 -/+ 4.303 / sqrt(3)
    assert mpe.mean_interval(np.array([1.0])) == []
    runs = [{"rounds": n, "return": x + 3.0 * n} for n in (0, 1, 3) for x in (1.0, 2.0, 3.0)]
    gain = list(mpe.summary(mpe.LISTENER, runs))[-1]
    assert gain == {"task": mpe.LISTENER, "gain_of_rounds": 9.0, "interval": [6.73, 11.27]}  # -/+ 2.776 sqrt(2 / 3)
