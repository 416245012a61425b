"""The exported graphs say what the networks say, to 1e-5, and their bytes depend on the weights alone."""

import copy
import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from algospace import consensus, nets
from algospace.errors import BundleError
from algospace.policy import bundle, golden, graphs
from algospace.rde.model import ROWS

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def lively(passing):
    """A policy whose agents disagree: heads as they might be after training, a hundred times as wide as before it."""
    team = copy.deepcopy(passing.team)
    with torch.no_grad():
        for head in team.out:
            head.weight *= 100.0
    return passing._replace(team=team)


@pytest.fixture(scope="module")
def exported(lively):
    return graphs.export(lively)


def session(graph):
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


def observation(policy, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(x.shape, generator=generator) for name, x in graphs.example(policy).items()}


def test_consensus_is_that_of_pytorch(lively, exported):
    run = graphs.runtime(exported[graphs.CONSENSUS], lively)
    reference = consensus.passes(lively.team, consensus.masks(lively.team, lively.settings.seed))
    for seed in range(20):
        seen = observation(lively, seed)
        found, expected = run(seen), reference(seen)
        assert [part.shape for part in found] == [part.shape for part in expected]
        for a, b in zip(found, expected, strict=True):
            assert np.abs(a - b).max() < TOLERANCE
        assert found[0].std(axis=0).max() > 1e-2, "fifty passes without dropout would be alike"


def test_masks_are_an_input(lively, exported):
    """A Dropout node is not random in ONNX Runtime, so there is none."""
    model = onnx.load_from_string(exported[graphs.CONSENSUS])
    assert not [node for node in model.graph.node if node.op_type == "Dropout"]
    run = session(exported[graphs.CONSENSUS])
    seen = {name: x.numpy() for name, x in observation(lively, 0).items()}
    masks = torch.cat(consensus.masks(lively.team, 1), dim=1).numpy()
    one, other = (run.run(None, seen | {"masks": m})[0] for m in (masks, np.ones_like(masks)))
    assert np.abs(one - other).max() > 1e-2
    assert np.abs(other - other[:1]).max() < TOLERANCE


def test_regimes_and_risk_are_those_of_pytorch(lively, exported):
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(ROWS, 96, 12)).astype(np.float32)
    found = session(exported[graphs.REGIME]).run(None, {"windows": windows})
    for a, b in zip(found, nets.infer(lively.rde, windows, rows=ROWS), strict=True):
        assert np.abs(a - b).max() < TOLERANCE
    states = rng.normal(size=(nets.INFERENCE_ROWS, len(lively.mrms.config["features"]))).astype(np.float32)
    found = session(exported[graphs.RISK]).run(None, {"state": states})
    for a, b in zip(found, nets.infer(lively.mrms, states), strict=False):
        assert np.abs(a - b).max() < TOLERANCE


def test_a_bundle_whose_graph_says_something_else_is_refused(lively, exported, tmp_path):
    for name, content in exported.items():
        (tmp_path / name).write_bytes(content)
    graphs.check(tmp_path, lively)
    for name in graphs.GRAPHS:
        model = onnx.load_from_string(exported[name])
        for part in model.graph.initializer:
            if part.data_type == onnx.TensorProto.FLOAT and part.dims:
                part.CopyFrom(
                    onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(part) + np.float32(0.01), part.name)
                )
        (tmp_path / name).write_bytes(model.SerializeToString())
        with pytest.raises(BundleError, match=rf"{name}: expected what the network says, found [\d.e-]+ beside it"):
            graphs.check(tmp_path, lively)
        (tmp_path / name).write_bytes(exported[name])


def test_graphs_are_valid_and_bare(exported):
    for content in exported.values():
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model, full_check=True)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", graphs.OPSET)]
        assert (model.producer_name, model.producer_version, model.doc_string) == ("algospace", "", "")
        for note in (b"algospace/", b".py", b"site-packages", b"stack_trace"):
            assert note not in content


AGAIN = """
import hashlib, sys, torch
from algospace.policy import bundle, graphs
from pathlib import Path
torch.set_num_threads(1)
policy, _ = bundle.load(Path(sys.argv[1]))
for name, content in graphs.export(policy).items():
    print(name, hashlib.sha256(content).hexdigest())
"""


def test_another_process_writes_the_same_bytes(lively, exported, tmp_path):
    bundle.write(tmp_path / "bundle", lively, {})
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, tmp_path / "bundle"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [f"{k} {hashlib.sha256(v).hexdigest()}" for k, v in exported.items()]
    assert done.stderr == ""


def test_golden_decisions_by_onnx_runtime(lively, exported, market_bars, tmp_path):
    """The same decisions, on the bundle's own golden bars."""
    beside = exported | golden.contents(lively, market_bars.iloc[:9000])
    bundle.write(tmp_path / "bundle", lively, {}, beside)
    loaded, _ = bundle.load(tmp_path / "bundle", "onnx")
    assert loaded.passes is not None
    assert golden.check(loaded, tmp_path / "bundle") > 10
    loaded.team.out[0].weight.zero_()  # PyTorch is not asked
    assert golden.check(loaded, tmp_path / "bundle") > 10
    votes = {vote for line in beside[golden.DECISIONS].splitlines() for vote in voted(line)}
    assert len(votes) > 1


def voted(line):
    return json.loads(line).get("consensus", {}).get("votes", {}).values()


def test_a_graph_of_another_policy_is_refused(lively, exported):
    features = lively.settings.features.model_copy(update={"window_5m": 30})
    other = lively._replace(settings=lively.settings._replace(features=features))
    with pytest.raises(BundleError, match=r"consensus\.onnx: expected inputs"):
        graphs.runtime(exported[graphs.CONSENSUS], other)


def test_a_graph_of_other_outputs_is_refused(lively, exported):
    model = onnx.load_from_string(exported[graphs.CONSENSUS])
    del model.graph.output[-1]
    with pytest.raises(BundleError, match=r"consensus\.onnx: expected outputs .* found") as caught:
        graphs.runtime(model.SerializeToString(), lively)
    assert "\n" not in str(caught.value)


def test_a_graph_that_answers_no_number_is_refused(lively, exported):
    model = onnx.load_from_string(exported[graphs.CONSENSUS])
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT:
            spoiled = np.full_like(onnx.numpy_helper.to_array(weights), np.nan)
            weights.CopyFrom(onnx.numpy_helper.from_array(spoiled, weights.name))
    run = graphs.runtime(model.SerializeToString(), lively)
    with pytest.raises(BundleError, match=r"consensus\.onnx: expected finite probabilities, found NaN or inf"):
        run(observation(lively, 0))
