"""A small market and frozen policies over it, built once: what features, policy and command line share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from algospace import synthetic
from algospace.calibration import Calibration
from algospace.data import contracts
from algospace.data.bars import fill_gaps
from algospace.data.params import DataParams
from algospace.features import fitted
from algospace.features.params import FeatureParams
from algospace.features.windows import GATE1_CODE, REGIME
from algospace.indicators.params import IndicatorParams
from algospace.market import MarketParams
from algospace.marl import engine
from algospace.marl.params import MARLParams
from algospace.mrms import model as ensemble
from algospace.mrms.communication import TrackNet
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import PROPOSAL_CODE
from algospace.mrms.state import feature_names
from algospace.pipeline.config import load_params
from algospace.policy.decide import Policy
from algospace.rde.model import RegimeVAE
from algospace.rde.space import Space
from algospace.settings import Settings
from algospace.synergy import Gate1Params

ROOT = Path(__file__).parents[1]
LONGEST = (
    "test_pipeline.py", "test_dvc_experiments.py", "test_distributed.py", "test_under_fire.py",
    "test_documented_commands.py", "test_what_reruns.py", "test_bad_files.py", "test_shared_rollouts.py",
    "test_long_sessions.py", "test_notebook.py", "test_pull_request.py", "test_other_surroundings.py",
)  # fmt: skip
SESSIONS = 60
TRAIN_SESSIONS = 40
LATENT = 4


def pytest_collection_modifyitems(items):
    """Files of minutes begin first, so that no worker ends long after the others (`--no-loadscope-reorder` obeys)."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="module")
def one_thread():
    """Tests that train small networks: on two threads they would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def section():
    """Read a section of params.yaml as its owner's model."""

    def read(name, model):
        return load_params(name, model, ROOT / "params.yaml")

    return read


@pytest.fixture(scope="session")
def settings(section):
    data = section("data", DataParams)
    data = data.model_copy(update={"synthetic": data.synthetic.model_copy(update={"sessions": SESSIONS})})
    return Settings(
        contracts.CONTRACTS["MES"],
        data,
        section("indicators", IndicatorParams),
        section("gate1", Gate1Params),
        section("features", FeatureParams),
        section("market", MarketParams),
        section("marl", MARLParams).gate2,
        seed=42,
        threads=1,
    )


@pytest.fixture(scope="session")
def market_bars(settings):
    """Every bar of 60 trading days."""
    return synthetic.market(settings.data.synthetic, settings.contract, 42)


@pytest.fixture(scope="session")
def gappy_bars(market_bars, settings):
    """The same days with holes: filled inside a session, some sessions without their last or first bars."""
    rng = np.random.default_rng(3)
    keep = rng.random(len(market_bars)) > 0.03
    session = market_bars["session_id"].to_numpy()
    for number, day in enumerate(np.unique(session)):
        rows = np.flatnonzero(session == day)
        if number % 3 == 1:
            keep[rows[-1 - number % 4 :]] = False
        if number % 5 == 2:
            keep[rows[: number % 9]] = False
    kept = market_bars[keep].reset_index(drop=True)
    return fill_gaps(kept, settings.contract.calendar, 5)


@pytest.fixture(scope="session")
def train_mask(market_bars):
    days = market_bars["session_id"].unique()
    return (market_bars["session_id"] < days[TRAIN_SESSIONS]).to_numpy()


@pytest.fixture(scope="session")
def fitted_state(market_bars, train_mask, settings):
    return fitted.fit(market_bars, train_mask, settings.indicators, settings.seed)


@pytest.fixture(scope="session")
def passing(settings, fitted_state, section):
    """A policy with the weights that a seed gives: its agents rarely agree, so it hardly trades."""
    return _policy(settings, fitted_state, section)


@pytest.fixture(scope="session")
def trading(settings, fitted_state, section):
    """A policy whose agents always follow the signal and whose confidence always passes: it trades all it may."""
    policy = _policy(settings, fitted_state, section)
    with torch.no_grad():
        policy.mrms.position.linear.bias[3] += 8.0
        policy.mrms.target.linear.bias[4] += 8.0
        policy.mrms.stop.linear.bias[5] += 8.0
        for head in policy.team.out:
            head.bias[1] += 8.0
    return policy._replace(calibration=Calibration(0.0, 5.0))


def _policy(settings, fitted_state, section):
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    grid = section("mrms", MRMSParams).model_copy(update={"hidden_dim": 8})
    regime = RegimeVAE(
        len(REGIME["mmd12"]), settings.features.window_regime, patch=4, d_model=16, n_heads=2, n_layers=1, d_ff=16,
        latent_dim=LATENT, dropout=0.1,
    )  # fmt: skip
    risk = ensemble.new(feature_names(LATENT), settings.market.limits.max_units, grid)
    for agent in (risk.position, risk.stop, risk.target):
        torch.nn.init.normal_(agent.network[-1].weight)
    marl = section("marl", MARLParams).model_copy(update={"channels": (4, 8, 8), "head_dim": 16, "n_heads": 2})
    team = engine.new_team(
        marl, np.zeros((2, LATENT + GATE1_CODE + PROPOSAL_CODE), np.float32), np.zeros((2, 2)), seed=0
    )
    memory = TrackNet(8, 4, 0.1)
    memory.start_at(torch.rand(30, 8).round(decimals=2))
    for model in (regime, risk, memory, team):
        model.eval().requires_grad_(False)
    space = Space(np.ones(LATENT), np.eye(LATENT), np.eye(2, LATENT) / 2, np.ones(2), np.ones(2))
    names = ["calm", "volatile"]
    return Policy(settings, fitted_state, regime, space, names, risk, memory, team, Calibration(1.0, 0.0))
