"""Pre-training: one agent's own eyes learn which side of a bracket pays before PPO begins.

The labels are those of the triple barrier (`algospace.marl.exams.triple_barrier`). What the agent keeps of it is its
trunk; the classifier on top is thrown away, since PPO's heads stand behind the communication.
"""

import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from algospace import agents, nets, performance, training
from algospace.env import TACTICAL
from algospace.errors import InputError
from algospace.marl.exams import Material
from algospace.params import RuntimeParams

CLASSES = 3  # PASS, WITH, AGAINST
PENALTY = 0.01  # inverse strength of the logistic baseline's L2 penalty


class Classifier(nn.Module):
    """One agent of a team, its trunk shared with it, and a linear classifier on its state.

    It begins with what is known without looking: how often each class occurs, ``shares`` (classes,).
    """

    def __init__(self, team: agents.Team, name: str, shares: np.ndarray) -> None:
        super().__init__()
        self.look = partial(team.look, name)  # a bound method, so that the team is no part of this module
        self.parts = nn.ModuleList([team.trunks[name]] + ([team.join_side] if name == TACTICAL else []))
        self.width, self.p = team.config["channels"][-1], team.p
        self.out = nn.Linear(self.width, CLASSES)
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.out.bias.copy_(torch.from_numpy(np.log(shares)))

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Logits (batch, classes); dropout only while training."""
        state = self.look(observation)
        if self.training:
            seeds = torch.randint(2**62, (len(state),))
            state = state * nets.dropout_masks(seeds.to(state.device), self.width, self.p)
        logits: Tensor = self.out(state)
        return logits


class Pretrained(NamedTuple):
    """A classifier as pre-training left it, and the run that trained it."""

    classifier: Classifier  # a copy: PPO goes on with the team's own trunk
    best_epoch: int  # -1 when no epoch was better than knowing how often each class occurs


def pretrain(
    team: agents.Team,
    name: str,
    lessons: Material,
    select: Material,
    params: training.OptimizerParams,
    runtime: RuntimeParams,
    seed: int,
    saver: training.Saver,
) -> Pretrained:
    """Train the trunk of agent ``name`` in place; stop early on the selecting half of validation.

    When no epoch is better there than the shares of the classes alone, the trunk stays as it was.

    Raises
    ------
    InputError
        Without candidates in either, or for a loss that is not finite.
    """
    n = len(lessons.sessions)
    if n < 2 or len(select.sessions) < 2:
        raise InputError(f"marl: expected candidates in train and in select, found {n} and {len(select.sessions)}")
    torch.manual_seed(seed)
    classifier = Classifier(team, name, shares(lessons)).to(runtime.device)
    taught = torch.from_numpy(labels(lessons)).to(runtime.device)

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randperm(n, generator=generator)[: params.samples_per_epoch]

    def loss(chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        logits = classifier(lessons.observe(chosen.numpy()))
        return F.cross_entropy(logits, taught[chosen.to(taught.device)])

    def validate() -> dict[str, float]:
        return {"loss": float(cross_entropy(probabilities(classifier, select), labels(select)).mean())}

    blind, weights = validate()["loss"], training.weights(classifier)
    fit = training.fit(f"marl {name}", classifier, draw, loss, validate, params, runtime, seed, saver, accumulation=1)
    if validate()["loss"] < blind:
        return Pretrained(copy.deepcopy(classifier), fit.best_epoch)
    classifier.load_state_dict(weights)
    return Pretrained(copy.deepcopy(classifier), -1)


def labels(given: Material) -> np.ndarray:
    """PASS, WITH or AGAINST (n,) of candidates that were labelled."""
    assert given.labels is not None
    return given.labels


def shares(given: Material) -> np.ndarray:
    """How often each class occurs (classes,), one case more of each: none is impossible."""
    counts = np.bincount(labels(given), minlength=CLASSES) + 1.0
    found: np.ndarray = counts / counts.sum()
    return found


@torch.no_grad()
def probabilities(classifier: Classifier, given: Material) -> np.ndarray:
    """Class probabilities (n, classes) float64 of a classifier, without dropout."""
    classifier.eval()
    parts = np.array_split(np.arange(len(given.sessions)), -(-len(given.sessions) // 256))
    return np.concatenate([classifier(given.observe(part)).softmax(-1).double().cpu().numpy() for part in parts])


def cross_entropy(p: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Cross-entropy (n,) in nats of class probabilities (n, classes)."""
    loss: np.ndarray = -np.log(np.maximum(p[np.arange(len(label)), label], 1e-12))
    return loss


def figures(trained: Pretrained, name: str, lessons: Material, exam: Material, draws: int, seed: int) -> dict[str, Any]:
    """Cross-entropy in nats on the reporting half, beside the majority class's and a logistic regression's.

    The majority's probabilities are the classes' shares of train. The logistic regression reads the last row and the
    mean row of the agent's window; where train knows one class, there is none. ``gain`` is the majority's cross-entropy
    less the network's, with its 95 % interval: above 0 the agent sees more than how often each class occurs.
    """
    asked = labels(exam)
    own = cross_entropy(probabilities(trained.classifier, exam), asked)
    majority = cross_entropy(np.tile(shares(lessons), (len(asked), 1)), asked)
    block = max(1.0, len(asked) / len(np.unique(exam.sessions)))
    low, high = performance.stationary_bootstrap_interval(majority - own, partial(np.mean, axis=-1), block, draws, seed)
    return {
        "best_epoch": trained.best_epoch,
        "cross_entropy": float(own.mean()),
        "majority_cross_entropy": float(majority.mean()),
        "logistic_cross_entropy": _logistic(lessons, exam, name),
        "gain": float((majority - own).mean()),
        "gain_low": low,
        "gain_high": high,
    }


def _logistic(lessons: Material, exam: Material, name: str) -> float | None:
    """Cross-entropy of a logistic regression fitted to ``lessons``; None where they hold a single class."""
    known, asked = labels(lessons), labels(exam)
    if len(np.unique(known)) < 2:
        return None
    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=500))
    logistic.fit(_summary(lessons, name), known)
    guessed = np.zeros((len(asked), CLASSES))
    guessed[:, logistic.classes_] = logistic.predict_proba(_summary(exam, name))
    return float(cross_entropy(guessed, asked).mean())


def _summary(given: Material, name: str) -> np.ndarray:
    """Last row and mean row of the agent's windows, and what the Tactical agent sees beside them: (n, columns)."""
    parts = np.array_split(np.arange(len(given.sessions)), -(-len(given.sessions) // 256))
    rows = []
    for part in parts:
        seen = given.observe(part)
        window = seen[name]
        columns = [window[:, -1], window.mean(dim=1)] + ([seen["side"]] if name == TACTICAL else [])
        rows.append(torch.cat(columns, dim=1).cpu().numpy())
    return np.concatenate(rows)
