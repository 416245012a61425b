"""MAPPO: PPO with decentralised actors and a centralised critic (Yu et al. 2022), over any vectorised environment.

Hyperparameters and diagnostics carry CleanRL's names. Differences from the textbook, each for a reason: the discount
is a tensor (decisions lie at different distances in time), and the actors' dropout masks are drawn from seeds that the
rollout stores, so that the ratio is 1 before the first optimiser step.
"""

from typing import Any, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from algospace import agents, training
from algospace.env import AGENTS, Observation, Step
from algospace.errors import InputError
from algospace.params import Params


class PPOParams(Params):
    """The `marl.ppo` section."""

    num_envs: int = Field(ge=1)
    num_steps: int = Field(ge=1)
    total_timesteps: int = Field(ge=1)
    gamma: float = Field(gt=0, le=1)
    gae_lambda: float = Field(ge=0, le=1)
    learning_rate: float = Field(gt=0)
    num_minibatches: int = Field(ge=1)
    update_epochs: int = Field(ge=1)
    clip_coef: float = Field(gt=0)
    ent_coef: float = Field(ge=0)
    vf_coef: float = Field(ge=0)
    aux_coef: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    target_kl: float = Field(gt=0)


class Env(Protocol):
    """What `train` asks of an environment."""

    num_envs: int
    device: str

    def observe(self) -> Observation:
        """Give what a rollout stores of the present moment, rows of ``num_envs``."""
        ...

    def expand(self, observation: Observation) -> Observation:
        """Turn stored rows into what the agents see."""
        ...

    def targets(self, observation: Observation) -> Tensor:
        """Give the auxiliary targets (rows, 2) of stored rows."""
        ...

    def step(self, actions: Tensor) -> Step:
        """Apply actions (num_envs, agents, 2); episodes that end begin anew."""
        ...

    def state(self) -> dict[str, Any]:
        """Give what `restore` needs to go on with the same bits."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        ...


class Rollout(NamedTuple):
    """A batch of experience, time first: tensors (num_steps, num_envs, ...)."""

    observation: Observation
    seeds: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    discounts: Tensor
    terminated: Tensor
    truncated: Tensor
    next_values: Tensor  # value of where the step led, before any reset


def gae(rollout: Rollout, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016) with a discount per step.

    delta_t = r_t + g_t V(s_{t+1}) (1 - terminated_t) - V(s_t); A_t = delta_t + g_t lambda (1 - done_t) A_{t+1}. A
    truncated episode bootstraps from the state it was cut in. Returns advantages and returns, (num_steps, num_envs).
    """
    delta = rollout.rewards + rollout.discounts * rollout.next_values * ~rollout.terminated - rollout.values
    nonterminal = ~(rollout.terminated | rollout.truncated)
    advantages = torch.zeros_like(delta)
    lastgaelam = torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        lastgaelam = delta[t] + rollout.discounts[t] * gae_lambda * nonterminal[t] * lastgaelam
        advantages[t] = lastgaelam
    return advantages, advantages + rollout.values


def ppo_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate (Schulman et al. 2017), averaged over batch and agents, with its diagnostics.

    ``log_probs`` (batch, agents); ``advantages`` (batch,) are the team's and count for every agent.
    """
    logratio = log_probs - old_log_probs
    ratio = logratio.exp()
    advantage = advantages[:, None]
    loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - clip_coef, 1 + clip_coef)).mean()
    with torch.no_grad():
        diagnostics = {
            "losses/approx_kl": ((ratio - 1) - logratio).mean(),
            "losses/clipfrac": ((ratio - 1).abs() > clip_coef).to(ratio.dtype).mean(),
        }
    return loss, diagnostics


STORED = ("seeds", "actions", "log_probs", "values")


class Trained(NamedTuple):
    """What training leaves beside the team, which it changes in place."""

    critic: agents.Critic
    history: training.History


def train(
    env: Env,
    team: agents.Team,
    params: PPOParams,
    critic_dim: int,
    seed: int,
    on_step: training.OnStep,
    resumed: dict[str, Any] | None,
) -> Trained:
    """Train a team in an environment; the state is saved at update boundaries.

    Raises
    ------
    InputError
        For a loss that is not finite.
    """
    device = env.device
    n_context = team.config["n_context"]
    width = team.config["channels"][-1]
    torch.manual_seed(seed)  # the critic's first weights are the seed's, whatever drew before
    critic = agents.Critic(len(AGENTS), width, n_context, critic_dim).to(device)
    parameters = [*team.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, params.learning_rate, eps=1e-5)
    generator = torch.Generator(device).manual_seed(seed)
    update, step = 0, 0
    history: training.History = []
    if resumed:
        team.load_state_dict(resumed["team"])
        critic.load_state_dict(resumed["critic"])
        optimizer.load_state_dict(resumed["optimizer"])
        generator.set_state(resumed["generator"])
        env.restore(resumed["env"])
        update, step, history = resumed["update"], resumed["step"], resumed["history"]

    def snapshot() -> dict[str, Any]:
        return {
            "team": team.state_dict(), "critic": critic.state_dict(), "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(), "env": env.state(), "update": update, "history": history,
        }  # fmt: skip

    updates = max(1, params.total_timesteps // (params.num_envs * params.num_steps))
    progress = tqdm(total=updates, desc="marl", unit="update", initial=update, disable=None)
    team.train()
    while update < updates:
        for group in optimizer.param_groups:
            group["lr"] = params.learning_rate * (1 - update / updates)
        rollout = collect(env, team, critic, params.num_steps, generator)
        diagnostics, steps = optimise(env, team, critic, optimizer, rollout, params, generator)
        step += steps
        update += 1
        history.append(diagnostics)
        progress.set_postfix(reward=f"{diagnostics['charts/mean_reward_r']:.4f}")
        progress.update()
        on_step(step, snapshot)
    progress.close()
    team.eval()
    return Trained(critic, history)


@torch.no_grad()
def collect(env: Env, team: agents.Team, critic: agents.Critic, num_steps: int, generator: torch.Generator) -> Rollout:
    """Let the team act for ``num_steps`` steps with dropout on, its masks drawn from stored seeds."""

    def draw_seeds() -> Tensor:
        return torch.randint(2**62, (env.num_envs,), generator=generator, device=env.device)

    columns: list[tuple[Any, ...]] = []
    observation = env.observe()
    for _ in range(num_steps):
        seeds = draw_seeds()
        seen = env.expand(observation)
        output = team(seen, seeds)
        actions = agents.sample(output, generator)
        log_probs, _ = agents.log_prob_entropy(output, actions)
        step = env.step(actions)
        columns.append((observation, seeds, actions, log_probs, critic(output, seen), step))
        observation = step.observation
    seen = env.expand(observation)
    last = critic(team(seen, draw_seeds()), seen)
    steps = [row[-1] for row in columns]
    stored = {name: torch.stack([row[i] for row in columns]) for i, name in enumerate(STORED, start=1)}
    next_values = torch.cat([stored["values"][1:], last[None]])
    terminated, truncated = (torch.stack([getattr(s, name) for s in steps]) for name in ("terminated", "truncated"))
    ended = terminated | truncated
    # Where an episode ended, the next row is another episode's: value the state that the step led to instead.
    for t in ended.any(dim=1).nonzero()[:, 0].tolist():
        final = env.expand({key: value[ended[t]] for key, value in steps[t].final.items()})
        next_values[t, ended[t]] = critic(team(final, stored["seeds"][t, ended[t]]), final)
    return Rollout(
        observation={key: torch.stack([row[0][key] for row in columns]) for key in observation},
        **stored,
        rewards=torch.stack([s.reward for s in steps]),
        discounts=torch.stack([s.discount for s in steps]),
        terminated=terminated,
        truncated=truncated,
        next_values=next_values,
    )


def optimise(
    env: Env,
    team: agents.Team,
    critic: agents.Critic,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    params: PPOParams,
    generator: torch.Generator,
) -> tuple[dict[str, float], int]:
    """One PPO update; returns the means of its diagnostics and the number of optimiser steps."""
    advantages, returns = gae(rollout, params.gae_lambda)
    flat = {key: value.flatten(0, 1) for key, value in rollout.observation.items()}
    seeds, actions, old_log_probs = (x.flatten(0, 1) for x in (rollout.seeds, rollout.actions, rollout.log_probs))
    advantages, returns, values = advantages.flatten(), returns.flatten(), rollout.values.flatten()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    batch = len(seeds)
    size = -(-batch // params.num_minibatches)
    rows: list[dict[str, Tensor]] = []
    for _ in range(params.update_epochs):
        order = torch.randperm(batch, generator=generator, device=seeds.device)
        for start in range(0, batch, size):
            chosen = order[start : start + size]
            compact = {key: value[chosen] for key, value in flat.items()}
            seen = env.expand(compact)
            output = team(seen, seeds[chosen])
            log_probs, entropy = agents.log_prob_entropy(output, actions[chosen])
            advantage = advantages[chosen]
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
            policy_loss, diagnostics = ppo_loss(log_probs, old_log_probs[chosen], advantage, params.clip_coef)
            value = critic(output, seen)
            value_loss = 0.5 * ((value - returns[chosen]) ** 2).mean()
            auxiliary = agents.auxiliary_loss(output, env.targets(compact))
            loss = (
                policy_loss
                - params.ent_coef * entropy.mean()
                + params.vf_coef * value_loss
                + params.aux_coef * auxiliary
            )
            if not torch.isfinite(loss):
                raise InputError(f"marl: expected a finite loss, found {loss.item()}")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, params.max_grad_norm)
            optimizer.step()
            rows.append(
                diagnostics
                | {
                    "losses/policy_loss": policy_loss.detach(), "losses/value_loss": value_loss.detach(),
                    "losses/entropy": entropy.mean().detach(), "losses/auxiliary": auxiliary.detach(),
                }
            )  # fmt: skip
        if float(rows[-1]["losses/approx_kl"]) > params.target_kl:
            break
    means = {key: float(torch.stack([row[key] for row in rows]).mean()) for key in rows[0]}
    variance = returns.var()
    means["losses/explained_variance"] = float(1 - (returns - values).var() / variance) if variance > 0 else 0.0
    means["charts/mean_reward_r"] = float(rollout.rewards.mean())
    return means, len(rows)
