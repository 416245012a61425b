import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from algospace import agents, nets
from algospace.marl.params import MARLParams
from algospace.mrms import model as ensemble
from algospace.mrms.params import MRMSParams
from algospace.mrms.state import feature_names
from algospace.pipeline.config import load_params
from algospace.rde.model import ROWS as REGIME_ROWS
from algospace.rde.model import RegimeVAE
from algospace.rde.params import RDEParams

FILE = Path(__file__).parents[1] / "params.yaml"
ROWS = nets.INFERENCE_ROWS


pytestmark = pytest.mark.usefixtures("one_thread")


# Dropout masks


def splitmix64(x):
    """The finaliser in unbounded integers."""
    x &= 2**64 - 1
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_masks_are_splitmix64_of_seed_and_unit():
    seeds = [0, 1, 42, 2**62 - 1, -5, 2**63 - 1, -(2**63)]
    masks = nets.dropout_masks(torch.tensor(seeds), 9, 0.3)
    for mask, seed in zip(masks.tolist(), seeds, strict=True):
        uniform = [(splitmix64(seed + k * 0x9E3779B97F4A7C15) >> 40) / 2**24 for k in range(1, 10)]
        assert mask == [np.float32(1 / (1 - 0.3)) if u >= 0.3 else 0 for u in uniform]


def test_a_mask_is_a_function_of_its_seed():
    seeds = torch.randint(2**62, (80,), generator=torch.Generator().manual_seed(0))
    masks = nets.dropout_masks(seeds, 64, 0.2)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    assert torch.equal(nets.dropout_masks(seeds[order], 64, 0.2), masks[order])
    assert torch.equal(nets.dropout_masks(seeds[7:8], 64, 0.2), masks[7:8])
    assert torch.equal(nets.dropout_masks(seeds, 32, 0.2), masks[:, :32])
    torch.manual_seed(123)
    torch.rand(5)
    assert torch.equal(nets.dropout_masks(seeds, 64, 0.2), masks)


def test_drawing_masks_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    nets.dropout_masks(torch.arange(5), 8, 0.5)
    assert torch.equal(torch.get_rng_state(), before)


KINDS_OF_SEEDS = {
    "consecutive": torch.arange(4000),
    "of the 50 passes": (torch.arange(4000) << 32) + 42,
    "random": torch.randint(2**62, (4000,), generator=torch.Generator().manual_seed(3)),
}


@pytest.mark.parametrize("kind", KINDS_OF_SEEDS)
@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_drop_rate(kind, p):
    masks = nets.dropout_masks(KINDS_OF_SEEDS[kind], 64, p)
    dropped = (masks == 0).double()
    assert set(masks.unique().tolist()) == {0.0, np.float32(1 / (1 - p))}
    sigma = math.sqrt(p * (1 - p))
    assert abs(dropped.mean() - p) < 4 * sigma / math.sqrt(dropped.numel())
    # No unit and no seed is dropped too often: 4000 and 64 draws, so five sigma among thousands.
    assert (dropped.mean(0) - p).abs().max() < 5 * sigma / math.sqrt(4000)
    assert (dropped.mean(1) - p).abs().max() < 5.5 * sigma / math.sqrt(64)
    assert abs(masks.double().mean() - 1) < 4 * sigma / (1 - p) / math.sqrt(dropped.numel())


@pytest.mark.parametrize("kind", KINDS_OF_SEEDS)
def test_neighbours_are_independent(kind):
    dropped = (nets.dropout_masks(KINDS_OF_SEEDS[kind], 64, 0.5) == 0).double() * 2 - 1
    bound = 4 / math.sqrt(dropped.numel())
    for lag in (1, 2, 3, 7):
        assert abs((dropped[lag:] * dropped[:-lag]).mean()) < bound, f"seeds {lag} apart"
        assert abs((dropped[:, lag:] * dropped[:, :-lag]).mean()) < bound * 1.1, f"units {lag} apart"
    assert abs((dropped[1:, 1:] * dropped[:-1, :-1]).mean()) < bound * 1.1


def test_seeds_differ():
    masks = nets.dropout_masks(torch.arange(500), 64, 0.5)
    assert len({tuple(row) for row in masks.tolist()}) == 500


def test_without_dropout_a_mask_is_one():
    assert torch.equal(nets.dropout_masks(torch.arange(9), 5, 0.0), torch.ones(9, 5))


# One row, the same bits wherever it stands


def regime_vae():
    params = load_params("rde", RDEParams, FILE)
    arch = {k: getattr(params, k) for k in ("patch", "d_model", "n_heads", "n_layers", "d_ff", "latent_dim", "dropout")}
    return RegimeVAE(12, 96, **arch), [(96, 12)]


def risk_net():
    params = load_params("mrms", MRMSParams, FILE)
    model = ensemble.new(feature_names(8), 5, params)
    for agent in (model.position, model.stop, model.target):
        nn.init.normal_(agent.network[-1].weight)
    return model, [(len(feature_names(8)),)]


class SeededTeam(nn.Module):
    """The team as rows of arrays, so that `infer` can run it."""

    NAMES = ("structure", "tactical", "side", "arbitrageur", "context", "account")

    def __init__(self):
        super().__init__()
        params = load_params("marl", MARLParams, FILE)
        self.team = agents.Team(
            params.agents, 43, params.channels, params.stride, params.n_heads, params.message_dim, params.head_dim,
            params.dropout, {"structure": 8, "tactical": 7, "arbitrageur": 15}, 9,
        )  # fmt: skip
        for layer in self.team.out:
            nn.init.orthogonal_(layer.weight, 1.0)

    def forward(self, seeds, *rows):
        return tuple(self.team(dict(zip(self.NAMES, rows, strict=True)), seeds[:, 0]))


def seeded_team():
    return SeededTeam(), [(48, 8), (60, 7), (9,), (100, 15), (38,), (5,)]


def inputs_of(shapes, n, seed, seeds):
    rng = np.random.default_rng(seed)
    rows = [rng.normal(size=(n, *shape)).astype(np.float32) for shape in shapes]
    return [rng.integers(0, 2**62, (n, 1)), *rows] if seeds else rows


MODULES = [(regime_vae, REGIME_ROWS), (risk_net, ROWS), (seeded_team, ROWS)]


@pytest.mark.parametrize(("make", "size"), MODULES)
def test_a_row_gives_the_same_bits_at_any_position(make, size):
    torch.manual_seed(0)
    module, shapes = make()
    n = 3 * ROWS + 7
    rows = inputs_of(shapes, n, 1, make is seeded_team)
    whole = nets.infer(module, *rows, rows=size)
    rng = np.random.default_rng(2)
    # Any selection, order and number of rows, repeats included; then one row at every position of a batch.
    for count in (1, 2, 3, 17, 49, 50, 51, 99, 100, 137):
        chosen = rng.integers(0, n, count)
        for a, b in zip(nets.infer(module, *(r[chosen] for r in rows), rows=size), whole, strict=True):
            assert np.array_equal(a, b[chosen]), count
    for position in range(size):
        chosen = rng.integers(0, n, size)
        chosen[position] = 11
        for a, b in zip(nets.infer(module, *(r[chosen] for r in rows), rows=size), whole, strict=True):
            assert np.array_equal(a[position], b[11]), position


@pytest.mark.parametrize(("make", "size"), MODULES)
def test_the_position_does_not_matter_to_two_threads_either(make, size):
    torch.set_num_threads(2)
    try:
        torch.manual_seed(0)
        module, shapes = make()
        rows = inputs_of(shapes, ROWS, 1, make is seeded_team)
        whole = nets.infer(module, *rows, rows=size)
        for count in (1, 23, ROWS):
            chosen = np.random.default_rng(count).integers(0, ROWS, count)
            for a, b in zip(nets.infer(module, *(r[chosen] for r in rows), rows=size), whole, strict=True):
                assert np.array_equal(a, b[chosen]), count
    finally:
        torch.set_num_threads(1)


def test_a_row_does_not_see_its_neighbours():
    torch.manual_seed(0)
    module, shapes = regime_vae()
    rows = inputs_of(shapes, ROWS, 1, False)[0]
    before = nets.infer(module, rows)[0]
    poisoned = rows.copy()
    poisoned[:20], poisoned[21:] = np.nan, 1e30
    assert np.array_equal(nets.infer(module, poisoned)[0][20], before[20])


def test_infer_runs_batches_of_one_shape_in_evaluation_mode():
    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.seen = []

        def forward(self, x, y):
            self.seen.append((len(x), self.training, torch.is_grad_enabled()))
            return x * self.weight, y.sum(1)

    spy = Spy()
    x, y = np.arange(120.0, dtype=np.float32), np.ones((120, 3), np.float32)
    out = nets.infer(spy, x, y)
    assert spy.seen == [(ROWS, False, False)] * 3
    assert np.array_equal(out[0], x)
    assert np.array_equal(out[1], np.full(120, 3.0))


def test_pad_repeats_the_last_row():
    padded = nets.pad(np.array([[1, 2], [3, 4]]), ROWS)
    assert padded.shape == (ROWS, 2)
    assert (padded[1:] == [3, 4]).all()
    full = np.arange(2.0 * ROWS).reshape(ROWS, 2)
    assert np.array_equal(nets.pad(full, ROWS), full)


# The blocks


def test_sinusoidal_positions():
    table = nets.sinusoidal_positions(30, 16)
    for p in range(30):
        for i in range(8):
            angle = p / 10000 ** (2 * i / 16)
            assert table[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_attention_pooling_by_hand():
    pool = nets.AttentionPooling(2)
    with torch.no_grad():
        pool.score.weight.copy_(torch.tensor([[math.log(3.0), 0.0]]))
    # Scores log 3 and 0: weights 3/4 and 1/4.
    pooled = pool(torch.tensor([[[1.0, 10.0], [0.0, 20.0]]]))
    assert pooled[0].tolist() == pytest.approx([0.75, 12.5])


@pytest.mark.parametrize(("batch", "time", "width", "n_heads"), [(3, 5, 8, 2), (1, 1, 4, 4), (4, 25, 32, 4)])
def test_self_attention_is_torchs(batch, time, width, n_heads):
    torch.manual_seed(0)
    own, theirs = nets.SelfAttention(width, n_heads), nn.MultiheadAttention(width, n_heads, batch_first=True)
    for layer in (own.project, own.out):
        nn.init.normal_(layer.bias)
    theirs.load_state_dict(
        {
            "in_proj_weight": own.project.weight, "in_proj_bias": own.project.bias,
            "out_proj.weight": own.out.weight, "out_proj.bias": own.out.bias,
        }
    )  # fmt: skip
    h = torch.randn(batch, time, width)
    torch.testing.assert_close(own(h), theirs(h, h, h, need_weights=False)[0], atol=1e-6, rtol=0)


def test_mlp_is_linear_at_its_end():
    layers = nets.mlp([3, 5, 4, 2], 0.25)
    assert [type(layer).__name__ for layer in layers] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)] == [
        (3, 5), (5, 4), (4, 2),
    ]  # fmt: skip
    assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.25}


def test_weights_survive_the_artefact():
    torch.manual_seed(0)
    first, second = nets.mlp([3, 4, 2], 0.1), nets.mlp([3, 4, 2], 0.1)
    nets.restore(second, nets.arrays(first))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not second.training
    assert not any(p.requires_grad for p in second.parameters())


def test_missing_weights_are_refused():
    first = nets.mlp([3, 4, 2], 0.1)
    tensors = nets.arrays(first)
    del tensors["0.bias"]
    with pytest.raises(RuntimeError, match=r"0\.bias"):
        nets.restore(nets.mlp([3, 4, 2], 0.1), tensors)
