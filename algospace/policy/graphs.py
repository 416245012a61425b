"""The networks as ONNX graphs, for runtimes other than PyTorch, and the consensus run by ONNX Runtime.

Dropout is no operator of a graph: ONNX Runtime leaves a Dropout node out even where it was exported in training mode,
and every pass would be the same. The masks of the 50 passes are an input, (50, units): the same ones at every event.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algospace import agents, consensus, market, nets
from algospace.consensus import Passes
from algospace.env import DELAYS
from algospace.errors import BundleError
from algospace.mrms.state import SIDES
from algospace.policy.decide import Policy
from algospace.rde import model as regime_model

CONSENSUS, REGIME, RISK = "consensus.onnx", "regime.onnx", "risk.onnx"
GRAPHS = (CONSENSUS, REGIME, RISK)
OPSET = 20
MASKS = "masks"
OUTPUTS = ("action", "timing", "confidence")  # probabilities of the 50 passes
RISK_OUTPUTS = ("units", "stop", "target", "weights", "confidence", "embedding")
TOLERANCE = 1e-5  # absolute or relative, of a graph to its network


class _Passes(nn.Module):
    """The 50 passes of a team for one event, their masks given."""

    def __init__(self, team: agents.Team, names: list[str]) -> None:
        super().__init__()
        self.team, self.names = team, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *seen, masks = inputs
        observation = dict(zip(self.names, seen, strict=True))
        drawn = list(torch.split(masks, self.team.mask_sizes, dim=1))
        return consensus.answers(self.team, *self.team.encode(observation), drawn)


class _Risk(nn.Module):
    """The distributions of the risk ensemble, without what only training reads."""

    def __init__(self, ensemble: nn.Module) -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, state: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.ensemble(state)[: len(RISK_OUTPUTS)])


def export(policy: Policy) -> dict[str, bytes]:
    """The consensus, the regime encoder and the risk ensemble: file name -> graph, the same bytes for the same weights.

    ====================  =======================================================================================
    ``consensus.onnx``    windows, context and account of one event, masks (50, units) -> probabilities (50, ...)
    ``regime.onnx``       ``windows`` (4, time, features) -> ``vector`` (4, latent), ``confidence`` (4,)
    ``risk.onnx``         ``state`` (50, features) -> ``units``, ``stop``, ``target``, ``weights``, ``confidence``,
                          ``embedding``
    ====================  =======================================================================================
    """
    seen = example(policy)
    masks = torch.cat(consensus.masks(policy.team, policy.settings.seed), dim=1)
    windows, state = torch.zeros(_windows(policy)), torch.zeros(_states(policy))
    return {
        CONSENSUS: _graph(_Passes(policy.team, list(seen)), [*seen.values(), masks], [*seen, MASKS], OUTPUTS),
        REGIME: _graph(policy.rde, [windows], ["windows"], ("vector", "confidence")),
        RISK: _graph(_Risk(policy.mrms), [state], ["state"], RISK_OUTPUTS),
    }


def _windows(policy: Policy) -> tuple[int, int, int]:
    """Shape of what the regime encoder reads."""
    return regime_model.ROWS, policy.rde.config["window"], policy.rde.config["n_features"]


def _states(policy: Policy) -> tuple[int, int]:
    """Shape of what the risk ensemble reads."""
    return nets.INFERENCE_ROWS, len(policy.mrms.config["features"])


def runtime(graph: bytes, policy: Policy, threads: int = 1) -> Passes:
    """The 50 passes of a policy by ONNX Runtime, for ``Policy.passes``.

    Raises
    ------
    BundleError
        For a graph that is not the policy's: its inputs have other names or shapes.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many kinds, without a common ancestor
        raise BundleError(f"{CONSENSUS}: expected an ONNX graph, found {error!s:.100}") from None
    masks = torch.cat(consensus.masks(policy.team, policy.settings.seed), dim=1).numpy()
    expected = {name: list(value.shape) for name, value in example(policy).items()} | {MASKS: list(masks.shape)}
    found = {given.name: given.shape for given in session.get_inputs()}
    if found != expected:
        raise BundleError(f"{CONSENSUS}: expected inputs {expected}, found {found}")
    widths = (len(consensus.ACTIONS), DELAYS, len(SIDES))
    shapes = [[consensus.PASSES, len(policy.team.agents), width] for width in widths]
    answers = dict(zip(OUTPUTS, shapes, strict=True))
    found = {given.name: given.shape for given in session.get_outputs()}
    if found != answers:
        raise BundleError(f"{CONSENSUS}: expected outputs {answers}, found {found}")

    def passes(observation: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        inputs = {name: observation[name].numpy() for name in expected if name != MASKS} | {MASKS: masks}
        action, timing, confidence = session.run(list(OUTPUTS), inputs)
        if not all(np.isfinite(part).all() for part in (action, timing, confidence)):
            raise BundleError(f"{CONSENSUS}: expected finite probabilities, found NaN or inf")
        return action.astype(np.float64), timing.astype(np.float64), confidence.astype(np.float64)

    return passes


def check(directory: Path, policy: Policy) -> None:
    """Run a bundle's graphs and the networks on the same made-up numbers.

    Raises
    ------
    BundleError
        Naming the graph that says something else, by more than `TOLERANCE`.
    """
    import onnxruntime

    drawn = torch.Generator().manual_seed(0)
    graph = {name: (directory / name).read_bytes() for name in GRAPHS}
    seen = {name: torch.randn(value.shape, generator=drawn) for name, value in example(policy).items()}
    windows, state = (torch.randn(shape, generator=drawn).numpy() for shape in (_windows(policy), _states(policy)))

    def told(name: str, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        session = onnxruntime.InferenceSession(graph[name], providers=["CPUExecutionProvider"])
        answers: list[np.ndarray] = session.run(None, inputs)
        return answers

    masks = consensus.masks(policy.team, policy.settings.seed)
    pairs = {
        CONSENSUS: (runtime(graph[CONSENSUS], policy)(seen), consensus.passes(policy.team, masks)(seen)),
        REGIME: (told(REGIME, {"windows": windows}), nets.infer(policy.rde, windows, rows=regime_model.ROWS)),
        RISK: (told(RISK, {"state": state}), nets.infer(policy.mrms, state)[: len(RISK_OUTPUTS)]),
    }
    for name, (found, expected) in pairs.items():
        for one, other in zip(found, expected, strict=True):
            if not np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE):
                farthest = float(np.abs(one - other).max())
                raise BundleError(f"{directory / name}: expected what the network says, found {farthest:.3g} beside it")


def example(policy: Policy) -> dict[str, Tensor]:
    """An observation of one event, of zeros."""
    team, features = policy.team, policy.settings.features
    lengths = {
        "structure": features.window_30m, "tactical": features.window_5m, "arbitrageur": features.window_arbitrage
    }  # fmt: skip
    seen = {name: torch.zeros(1, lengths[name], team.config["features"][name]) for name in team.agents}
    if "tactical" in team.agents:
        seen["side"] = torch.zeros(1, team.config["n_side"])
    account = market.ACCOUNT_FEATURES
    seen["context"] = torch.zeros(1, team.config["n_context"] - account)
    seen["account"] = torch.zeros(1, account)
    return seen


def _graph(module: nn.Module, inputs: list[Tensor], names: list[str], outputs: tuple[str, ...]) -> bytes:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), tuple(inputs), input_names=names, output_names=list(outputs), opset_version=OPSET,
            dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    # The exporter writes stack traces with paths, and its own version, into the graph: nothing that computes.
    _bare(model)
    model.producer_name, model.producer_version = "algospace", ""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _bare(message: Any) -> None:
    """Remove notes from a protocol buffer message and from all that it holds."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for one in value if field.is_repeated else [value]:
                _bare(one)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own deprecations and hints off the screen, and PyTorch's fused attention out of the graph."""
    logger = logging.getLogger("torch.onnx")
    level, fused = logger.level, torch.backends.mha.get_fastpath_enabled()
    logger.setLevel(logging.ERROR)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fused)
