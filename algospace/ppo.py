"""PPO (Schulman et al. 2017) over any vectorised environment, for one agent or a team of them.

Hyperparameters and diagnostics carry CleanRL's names. Differences from the textbook, each for a reason: the discount
is a tensor (decisions lie at different distances in time), and what an actor draws beside its actions (dropout) comes
from seeds that the rollout stores, so that the ratio is 1, to rounding, before the first optimiser step.

Several processes (`algospace.distributed`) share the episodes: each acts in its own and draws for itself. A minibatch
is the union of theirs, whose advantages are normalised together, and the mean of their gradients is its gradient.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from algospace import distributed, training
from algospace.errors import InputError
from algospace.gradient import as_memory_allows
from algospace.params import Params

Observation = dict[str, Tensor]


class PPOParams(Params):
    """A `ppo` section, in CleanRL's names."""

    num_envs: int = Field(ge=1)
    num_steps: int = Field(ge=1)
    total_timesteps: int = Field(ge=1)
    gamma: float = Field(gt=0, le=1)
    gae_lambda: float = Field(ge=0, le=1)
    learning_rate: float = Field(gt=0)
    anneal_lr: bool
    num_minibatches: int = Field(ge=1)
    update_epochs: int = Field(ge=1)
    norm_adv: bool
    clip_coef: float = Field(gt=0)
    clip_vloss: bool
    ent_coef: float = Field(ge=0)
    final_ent_coef: float = Field(ge=0)
    vf_coef: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    target_kl: float = Field(gt=0)


class Step(NamedTuple):
    """One step of every episode."""

    observation: Observation
    reward: Tensor  # float32 (episodes,)
    discount: Tensor  # float32: gamma to the power of the bars spent flat
    terminated: Tensor
    truncated: Tensor
    final: Observation  # where the step led, before any reset: what a truncated episode bootstraps from
    logged: Mapping[str, Tensor] = MappingProxyType({})  # what else its mean is logged of, such as a reward's terms


class Env(Protocol):
    """What `train` asks of an environment."""

    num_envs: int
    device: str

    def observe(self) -> Observation:
        """Give what a rollout stores of the present moment, rows of ``num_envs``."""
        ...

    def expand(self, observation: Observation) -> Observation:
        """Turn stored rows into what the actors see."""
        ...

    def step(self, actions: Tensor) -> Step:
        """Apply actions (num_envs, ...); episodes that end begin anew."""
        ...

    def state(self) -> dict[str, Any]:
        """Give what `restore` needs to go on with the same bits."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        ...


class Judgement(NamedTuple):
    """What a learner says of stored rows."""

    log_probs: Tensor  # (batch, actors)
    entropy: Tensor  # (batch, actors)
    values: Tensor  # (batch,)
    extra: Tensor  # scalar: what the learner adds to the loss
    diagnostics: dict[str, Tensor]


class Learner(Protocol):
    """Actors and critic, an `nn.Module`; ``seeds`` int64 (batch,) decide whatever a pass draws beside its actions."""

    def act(self, seen: Observation, seeds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw actions (batch, ...); give their log-probabilities (batch, actors) and the values (batch,) too."""
        ...

    def value(self, seen: Observation, seeds: Tensor) -> Tensor:
        """Value (batch,) of what is seen."""
        ...

    def judge(self, observation: Observation, seen: Observation, seeds: Tensor, actions: Tensor) -> Judgement:
        """Judge stored rows (``observation``; ``seen`` once expanded) and the actions taken there, with gradients."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Weights."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Inverse of `state_dict`."""
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
    logged: Mapping[str, Tensor] = MappingProxyType({})


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
    """Clipped surrogate (Schulman et al. 2017), averaged over batch and actors, with its diagnostics.

    ``log_probs`` (batch, actors); ``advantages`` (batch,) are the team's and count for every actor.
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


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_coef: float, clip_vloss: bool) -> Tensor:
    """Half the mean squared error of values (batch,).

    With ``clip_vloss`` a value that moves more than ``clip_coef`` from the rollout's earns nothing by it: the larger
    of the errors of the value and of the clipped value counts.
    """
    error = (values - returns) ** 2
    if clip_vloss:
        clipped = old_values + (values - old_values).clamp(-clip_coef, clip_coef)
        error = torch.max(error, (clipped - returns) ** 2)
    return 0.5 * error.mean()


class Minibatch(NamedTuple):
    """Stored rows of a rollout, and what is learnt from them: tensors (batch, ...)."""

    observation: Observation
    seeds: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def rows(self, chosen: Tensor | slice) -> "Minibatch":
        """Some of the rows."""
        observation = {key: value[chosen] for key, value in self.observation.items()}
        return Minibatch(observation, *(part[chosen] for part in self[1:]))


class Update(NamedTuple):
    """What an update came to."""

    diagnostics: dict[str, float]  # means over its minibatches
    steps: int  # of the optimiser
    parts: int  # that a minibatch was cut into


STORED = ("seeds", "actions", "log_probs", "values")


def train(
    name: str,
    env: Env,
    learner: Learner,
    params: PPOParams,
    seed: int,
    saver: training.Saver,
) -> training.History:
    """Train a learner in place; the state is saved at update boundaries.

    Parameters
    ----------
    name
        For the progress bar and the messages.
    env
        Holds this process's share of ``params.num_envs`` episodes.
    seed
        Of the actions drawn and of the order of the minibatches.
    saver
        Keeps the training state: a resumed run ends with the same bytes.

    Raises
    ------
    InputError
        For a loss that is not finite, and for what a team says that is not.
    """
    optimizer = torch.optim.Adam(learner.parameters(), params.learning_rate, eps=1e-5)
    generator = torch.Generator(env.device).manual_seed(distributed.own_seed(seed))
    update, step, parts = 0, 0, 1
    history: training.History = []
    if saver.resumed:
        resumed = saver.resumed
        learner.load_state_dict(resumed["learner"])
        optimizer.load_state_dict(resumed["optimizer"])
        own = distributed.own_state(resumed["own"])
        generator.set_state(own["generator"])
        env.restore(own["env"])
        update, step, history = resumed["update"], resumed["step"], resumed["history"]
        parts = resumed["parts"]

    def snapshot() -> dict[str, Any]:
        own = distributed.gathered_state({"generator": generator.get_state(), "env": env.state()})
        return {
            "learner": learner.state_dict(), "optimizer": optimizer.state_dict(), "own": own, "update": update,
            "history": history, "parts": parts,
        }  # fmt: skip

    updates = max(1, params.total_timesteps // (params.num_envs * params.num_steps))
    progress = tqdm(
        total=updates, desc=name, unit="update", initial=update, disable=None if distributed.leads() else True
    )
    while update < updates:
        left = 1 - update / updates
        for group in optimizer.param_groups:
            group["lr"] = params.learning_rate * (left if params.anneal_lr else 1.0)
        ent_coef = params.final_ent_coef + (params.ent_coef - params.final_ent_coef) * left
        rollout = collect(env, learner, params.num_steps, generator)
        diagnostics, steps, parts = optimise(name, env, learner, optimizer, rollout, params, ent_coef, generator, parts)
        step += steps
        update += 1
        history.append(diagnostics)
        progress.set_postfix(reward=f"{diagnostics['charts/mean_reward_r']:.4f}")
        progress.update()
        saver(step, snapshot)
    progress.close()
    saver.ended(step, snapshot)
    return history


@torch.no_grad()
def collect(env: Env, learner: Learner, num_steps: int, generator: torch.Generator) -> Rollout:
    """Let the learner act for ``num_steps`` steps, every pass with seeds of its own, which are stored."""

    def draw_seeds() -> Tensor:
        return torch.randint(2**62, (env.num_envs,), generator=generator, device=env.device)

    columns: list[tuple[Any, ...]] = []
    observation = env.observe()
    for _ in range(num_steps):
        seeds = draw_seeds()
        actions, log_probs, values = learner.act(env.expand(observation), seeds, generator)
        step = env.step(actions)
        columns.append((observation, seeds, actions, log_probs, values, step))
        observation = step.observation
    last = learner.value(env.expand(observation), draw_seeds())
    steps = [row[-1] for row in columns]
    stored = {name: torch.stack([row[i] for row in columns]) for i, name in enumerate(STORED, start=1)}
    next_values = torch.cat([stored["values"][1:], last[None]])
    terminated, truncated = (torch.stack([getattr(s, name) for s in steps]) for name in ("terminated", "truncated"))
    ended = terminated | truncated
    # Where an episode ended, the next row is another episode's: value the state that the step led to instead.
    for t in ended.any(dim=1).nonzero()[:, 0].tolist():
        final = env.expand({key: value[ended[t]] for key, value in steps[t].final.items()})
        next_values[t, ended[t]] = learner.value(final, stored["seeds"][t, ended[t]])
    return Rollout(
        observation={key: torch.stack([row[0][key] for row in columns]) for key in observation},
        **stored,
        rewards=torch.stack([s.reward for s in steps]),
        discounts=torch.stack([s.discount for s in steps]),
        terminated=terminated,
        truncated=truncated,
        next_values=next_values,
        logged={name: torch.stack([s.logged[name] for s in steps]) for name in steps[0].logged},
    )


def optimise(
    name: str,
    env: Env,
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    params: PPOParams,
    ent_coef: float,
    generator: torch.Generator,
    parts: int = 1,
) -> Update:
    """One PPO update.

    ``ent_coef`` is this update's, between the first and the final one of ``params``. A minibatch is computed in
    ``parts``, in twice as many whenever memory runs out: it means the same, to rounding.

    Raises
    ------
    InputError
        For a loss that is not finite, for probabilities or values behind the last step that are not, and for too little
        memory for a single row.
    """
    advantages, returns = gae(rollout, params.gae_lambda)
    flat = {key: value.flatten(0, 1) for key, value in rollout.observation.items()}
    seeds, actions, old_log_probs = (x.flatten(0, 1) for x in (rollout.seeds, rollout.actions, rollout.log_probs))
    advantages, returns, values = advantages.flatten(), returns.flatten(), rollout.values.flatten()
    everything = Minibatch(flat, seeds, actions, old_log_probs, values, advantages, returns)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    batch = len(seeds)
    size = -(-batch // params.num_minibatches)
    rows: list[dict[str, Tensor]] = []
    for _ in range(params.update_epochs):
        order = torch.randperm(batch, generator=generator, device=seeds.device)
        for start in range(0, batch, size):
            minibatch = everything.rows(order[start : start + size])
            if params.norm_adv:
                everyones = distributed.gathered(minibatch.advantages)
                normal = (minibatch.advantages - everyones.mean()) / (everyones.std(correction=0) + 1e-8)
                minibatch = minibatch._replace(advantages=normal)

            def gradient(parts: int, minibatch: Minibatch = minibatch) -> dict[str, Tensor]:
                optimizer.zero_grad()
                return _gradient(name, env, learner, minibatch, params, ent_coef, parts)

            n = len(minibatch.seeds)
            row, parts = as_memory_allows(name, gradient, parts, n, n)
            distributed.average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, params.max_grad_norm)
            optimizer.step()
            rows.append(row)
        # All processes hear the same number, so all of them stop or none.
        if float(_mean(rows[-1]["losses/approx_kl"])) > params.target_kl:
            break
    _require_finite(name, env, learner, minibatch.rows(slice(-(-n // parts))))
    means = {key: float(_mean(torch.stack([row[key] for row in rows]).mean())) for key in rows[0]}
    returns, values = distributed.gathered(returns), distributed.gathered(values)
    variance = returns.var()
    means["losses/explained_variance"] = float(1 - (returns - values).var() / variance) if variance > 0 else 0.0
    for key, part in {"reward_r": rollout.rewards, **rollout.logged}.items():
        means[f"charts/mean_{key}"] = float(_mean(part.mean()))
    return Update(means, len(rows), parts)


def _gradient(
    name: str, env: Env, learner: Learner, minibatch: Minibatch, params: PPOParams, ent_coef: float, parts: int
) -> dict[str, Tensor]:
    """Leave the gradient of a minibatch's loss, computed in parts, in the learner; return the diagnostics' means."""
    n = len(minibatch.seeds)
    size = -(-n // parts)
    means: dict[str, Tensor] = {}
    for start in range(0, n, size):
        part = minibatch.rows(slice(start, start + size))
        judged = learner.judge(part.observation, env.expand(part.observation), part.seeds, part.actions)
        policy_loss, diagnostics = ppo_loss(judged.log_probs, part.log_probs, part.advantages, params.clip_coef)
        v_loss = value_loss(judged.values, part.values, part.returns, params.clip_coef, params.clip_vloss)
        entropy = judged.entropy.mean()
        loss = policy_loss - ent_coef * entropy + params.vf_coef * v_loss + judged.extra
        if not torch.isfinite(loss):
            raise InputError(f"{name}: expected a finite loss, found {loss.item()}")
        weight = len(part.seeds) / n
        (weight * loss).backward()  # type: ignore[no-untyped-call]
        losses = {"losses/policy_loss": policy_loss, "losses/value_loss": v_loss, "losses/entropy": entropy}
        for key, value in (diagnostics | losses | judged.diagnostics).items():
            means[key] = means.get(key, 0.0) + weight * value.detach()
    return means


@torch.no_grad()
def _require_finite(name: str, env: Env, learner: Learner, rows: Minibatch) -> None:
    """Judge rows of an update's last minibatch once more: the loss was looked at before the last step, not after it."""
    judged = learner.judge(rows.observation, env.expand(rows.observation), rows.seeds, rows.actions)
    if not all(torch.isfinite(part).all() for part in (judged.log_probs, judged.entropy, judged.values)):
        raise InputError(f"{name}: expected finite probabilities and values after an update, found others")


def _mean(value: Tensor) -> Tensor:
    """Mean of a scalar over the processes."""
    return distributed.gathered(value[None]).mean()
