"""Three tasks of MPE (Lowe et al. 2017) as mpe2 1.1.1 has them, vectorised: particles that push, bump and speak.

Every agent is a unit mass in the plane. A step adds a tenth of the velocity to the position, damps the velocity by a
quarter and adds a tenth of the force: 5 along an axis when the agent pushes, and 100 times how deep it overlaps with
another, smoothly, where agents bump. What is said is seen in the next step. Episodes last 25 steps and are cut, not
ended: nothing in an observation tells the time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from algospace.ppo import Observation, Step

EPISODE = 25
DT, DAMPING, PUSH = 0.1, 0.25, 5.0
CONTACT_FORCE, CONTACT_MARGIN = 100.0, 1e-3
LANDMARKS = 3
MOVES = torch.tensor([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])


class State(NamedTuple):
    """Where everything is, (episodes, agents or landmarks, ...)."""

    position: Tensor
    velocity: Tensor
    landmarks: Tensor  # positions
    goals: Tensor  # int64: the landmark that each agent wants another (or nobody) at
    said: Tensor  # words, one-hot; zeros from the silent and before the first step


class Task(NamedTuple):
    """One of the three; an action is a move, a word, or a move + 5 times a word."""

    features: dict[str, int]  # of what each agent sees
    moves: tuple[bool, ...]
    speaks: tuple[bool, ...]
    words: int
    radius: float  # of agents that bump; 0 where they pass through each other
    views: Callable[[State], list[Tensor]]  # what each agent sees, (episodes, features)
    reward: Callable[[State], Tensor]  # (episodes,), the sum over the agents

    def actions(self) -> dict[str, int]:
        """Give the number of actions of each agent."""
        words = [self.words if speaks else 1 for speaks in self.speaks]
        moves = [len(MOVES) if moves else 1 for moves in self.moves]
        return {name: w * m for name, w, m in zip(self.features, words, moves, strict=True)}

    def start(self, episodes: int, generator: torch.Generator) -> State:
        """Draw beginnings of episodes."""
        agents = len(self.features)
        places = torch.rand(episodes, agents + LANDMARKS, 2, generator=generator) * 2 - 1
        goals = torch.randint(LANDMARKS, (episodes, agents), generator=generator)
        velocity, said = torch.zeros(episodes, agents, 2), torch.zeros(episodes, agents, self.words)
        return State(places[:, :agents], velocity, places[:, agents:], goals, said)

    def step(self, state: State, actions: Tensor) -> State:
        """Where actions (episodes, agents) lead."""
        moves, speaks = torch.tensor(self.moves), torch.tensor(self.speaks)
        dtype = state.position.dtype
        force = PUSH * MOVES.to(dtype)[torch.where(moves, actions % len(MOVES), 0)]
        if self.radius:
            force = force + contact(state.position, 2 * self.radius)
        word = torch.where(moves, actions // len(MOVES), actions)
        return state._replace(
            position=state.position + DT * state.velocity,
            velocity=(1 - DAMPING) * state.velocity + DT * force,
            said=torch.eye(self.words, dtype=dtype)[word] * speaks[:, None],
        )


def contact(position: Tensor, reach: float) -> Tensor:
    """Force (episodes, agents, 2) that pushes apart those nearer than ``reach``."""
    delta = position[:, :, None] - position[:, None]
    distance = delta.norm(dim=-1) + 1e6 * torch.eye(position.shape[1], dtype=position.dtype)  # from oneself: far
    overlap = (reach - distance) / CONTACT_MARGIN
    depth = torch.logaddexp(torch.zeros_like(overlap), overlap) * CONTACT_MARGIN
    return (CONTACT_FORCE * depth / distance)[..., None].mul(delta).sum(2)


def to_landmarks(state: State, agent: int) -> Tensor:
    """Landmarks as the agent sees them, (episodes, 6)."""
    return (state.landmarks - state.position[:, agent, None]).flatten(1)


def off_goal(state: State, who: int, whose: int) -> Tensor:
    """Vector (episodes, 2) from an agent to the landmark that ``whose`` goal is."""
    goal = state.landmarks.gather(1, state.goals[:, whose, None, None].expand(-1, 1, 2))[:, 0]
    return goal - state.position[:, who]


def spread_views(state: State) -> list[Tensor]:
    """Own velocity and place, the landmarks, the others, and the nothing that they say."""
    views = []
    for i in range(LANDMARKS):
        others = [j for j in range(LANDMARKS) if j != i]
        offsets = (state.position[:, others] - state.position[:, i, None]).flatten(1)
        own = [state.velocity[:, i], state.position[:, i]]
        views.append(torch.cat([*own, to_landmarks(state, i), offsets, state.said[:, others].flatten(1)], dim=1))
    return views


def spread_reward(state: State) -> Tensor:
    """Minus 1.5 times the distances of the landmarks from the nearest agent, minus 1 for each pair that bumps."""
    distance = (state.landmarks[:, :, None] - state.position[:, None]).norm(dim=-1)
    first, second = torch.triu_indices(LANDMARKS, LANDMARKS, 1)
    apart = (state.position[:, first] - state.position[:, second]).norm(dim=-1)
    return -1.5 * distance.amin(2).sum(1) - (apart < 2 * SPREAD_RADIUS).sum(1)


def listener_views(state: State) -> list[Tensor]:
    """The speaker sees the colour of the goal alone; the listener its velocity, the landmarks and what was said."""
    colour = 0.15 + 0.5 * torch.eye(LANDMARKS, dtype=state.position.dtype)[state.goals[:, 0]]
    return [colour, torch.cat([state.velocity[:, 1], to_landmarks(state, 1), state.said[:, 0]], dim=1)]


def listener_reward(state: State) -> Tensor:
    """Minus the listener's squared distance from the goal, for each of the two agents."""
    return -2 * off_goal(state, 1, 0).square().sum(1)


def reference_views(state: State) -> list[Tensor]:
    """Own velocity, the landmarks, the colour of the landmark that the other should go to, and what the other said."""
    colours = 0.25 + 0.5 * torch.eye(LANDMARKS, dtype=state.position.dtype)[state.goals]
    return [
        torch.cat([state.velocity[:, i], to_landmarks(state, i), colours[:, i], state.said[:, 1 - i]], dim=1)
        for i in range(2)
    ]


def reference_reward(state: State) -> Tensor:
    """Minus both agents' distances from the landmarks that they should go to."""
    return -sum(off_goal(state, i, 1 - i).norm(dim=1) for i in range(2))


SPREAD_RADIUS = 0.15
TASKS = {
    "simple_spread_v3": Task(
        {f"agent_{i}": 18 for i in range(3)}, (True,) * 3, (False,) * 3, 2, SPREAD_RADIUS, spread_views, spread_reward
    ),
    "simple_speaker_listener_v4": Task(
        {"speaker_0": 3, "listener_0": 11}, (False, True), (True, False), 3, 0.0, listener_views, listener_reward
    ),
    "simple_reference_v3": Task(
        {f"agent_{i}": 21 for i in range(2)}, (True,) * 2, (True,) * 2, 10, 0.0, reference_views, reference_reward
    ),
}  # fmt: skip


class ParticleEnv:
    """Vectorised episodes of a task."""

    def __init__(self, task: Task, num_envs: int, gamma: float, reward_unit: float, seed: int) -> None:
        self.task, self.num_envs, self.device = task, num_envs, "cpu"
        self.reward_unit = reward_unit  # what the learner calls 1
        self.gamma = torch.full((num_envs,), gamma)
        self.generator = torch.Generator().manual_seed(seed)
        self.now = task.start(num_envs, self.generator)
        # Episodes end at different times, so that a batch always holds all of them.
        self.left = torch.randint(1, EPISODE + 1, (num_envs,), generator=self.generator)

    def observe(self) -> Observation:
        """What each agent sees."""
        return dict(zip(self.task.features, self.task.views(self.now), strict=True))

    def expand(self, observation: Observation) -> Observation:
        """The same."""
        return observation

    def step(self, actions: Tensor) -> Step:
        """Apply actions (num_envs, agents)."""
        self.now = self.task.step(self.now, actions)
        self.left = self.left - 1
        reward = self.task.reward(self.now) / self.reward_unit
        truncated = self.left == 0
        observation = final = self.observe()
        if truncated.any():
            fresh = self.task.start(int(truncated.sum()), self.generator)
            self.now = State(*(old.index_put((truncated,), new) for old, new in zip(self.now, fresh, strict=True)))
            self.left = torch.where(truncated, EPISODE, self.left)
            observation = self.observe()
        return Step(observation, reward, self.gamma, torch.zeros_like(truncated), truncated, final)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same bits."""
        return self.now._asdict() | {"left": self.left, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.now = State(*(state[name] for name in State._fields))
        self.left = state["left"]
        self.generator.set_state(state["generator"])


class Shared:
    """One network in the place of all agents of a task whose agents see and do the same: a row is an agent's.

    Beside its own view (``AGENT``) a row holds those of all (``TEAM``), for the critic. All are paid the team's reward.
    """

    AGENT, TEAM = "agent", "team"

    def __init__(self, env: ParticleEnv) -> None:
        self.env, self.device = env, env.device
        self.agents = len(env.task.features)
        self.num_envs = env.num_envs * self.agents
        (self.features,) = set(env.task.features.values())
        (self.actions,) = set(env.task.actions().values())

    def _rows(self, observation: Observation) -> Observation:
        views = torch.stack(list(observation.values()), dim=1)  # (episodes, agents, features)
        return {self.AGENT: views.flatten(0, 1), self.TEAM: self._each(views.flatten(1))}

    def _each(self, episodes: Tensor) -> Tensor:
        return episodes.repeat_interleave(self.agents, dim=0)

    def observe(self) -> Observation:
        """What each agent sees, and what all see."""
        return self._rows(self.env.observe())

    def expand(self, observation: Observation) -> Observation:
        """The same."""
        return observation

    def step(self, actions: Tensor) -> Step:
        """Apply actions (num_envs, 1)."""
        step = self.env.step(actions.view(-1, self.agents))
        return Step(
            self._rows(step.observation), self._each(step.reward), self._each(step.discount),
            self._each(step.terminated), self._each(step.truncated), self._rows(step.final),
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same bits."""
        return self.env.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.env.restore(state)
