"""MAPPO on two processes: the update of one over all their episodes, stopped together, the same after a kill."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from savers import RUNTIME
from test_mappo import PARAMS, Signs, small_team

from algospace import artefacts, distributed, mappo, nets, ppo
from algospace.data.splits import EMBARGO, REPORT, SELECT, TRAIN
from algospace.errors import InputError
from algospace.features import prepared
from algospace.market import MarketParams
from algospace.mrms import model as risk_model
from algospace.mrms.params import MRMSParams
from algospace.mrms.proposal import propose
from algospace.mrms.state import feature_names, states
from algospace.pipeline.config import load_params

ROOT = Path(__file__).parents[1]
LATENT = 3
SMALL = {
    "channels": [4, 4, 4], "n_heads": 2, "message_dim": 4, "head_dim": 8, "critic_dim": 8, "seeds": [0],
}  # fmt: skip
STEPS = {"num_envs": 16, "num_steps": 8, "total_timesteps": 16 * 8 * 12, "num_minibatches": 4, "update_epochs": 4}
FULL_BATCH = {"num_minibatches": 1, "total_timesteps": 16 * 8, "target_kl": 1e9}

pytestmark = pytest.mark.usefixtures("one_thread")


def torchrun(folder, *command, path):
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ALGOSPACE_", "DVC_", "PYTEST_"))}
    return subprocess.Popen(
        started, cwd=folder, env=environment | {"PYTHONPATH": os.pathsep.join(map(str, path))}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def end(process):
    """Kill torchrun and its workers, which are groups of their own."""
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        each.kill()
    process.communicate()


def finish(process):
    try:
        output, _ = process.communicate(timeout=150)
    except subprocess.TimeoutExpired:
        end(process)
        raise
    assert process.returncode == 0, output
    return output


# The loop, on a tiny environment

SCRIPT = '''
import json
from pathlib import Path

import torch
from savers import Hook
from test_mappo import PARAMS, Signs, small_team
from test_shared_rollouts import FULL_BATCH

from algospace import artefacts, distributed, mappo, nets, ppo
from algospace.pipeline import training_state

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
distributed.join("cpu")
rank = distributed.rank()
training_state.SAVE_EVERY = 1


def train(name, params, saver, seed=0):
    """Every process leaves its weights, its history and the state of its episodes."""
    team, env = small_team(seed), Signs(distributed.own_count(16, "num_envs"), distributed.own_seed(seed))
    trained = mappo.train(env, team, params, 16, "float32", seed, saver)
    weights = nets.arrays(team) | {f"critic.{k}": v for k, v in nets.arrays(trained.critic).items()}
    left = weights | {"kind": env.kind.numpy(), "episodes": env.generator.get_state().numpy()}
    artefacts.write_tensors(Path(f"{name}_{rank}"), left, {"history": trained.history})


train("full", PARAMS.model_copy(update=FULL_BATCH), Hook())
train("straight", PARAMS, Hook())


class Cut(training_state.TrainingState):
    """Dies after its second save."""

    saves = 0

    def _save(self, step, snapshot):
        super()._save(step, snapshot)
        self.saves += 1
        if self.saves == 2:
            raise KeyboardInterrupt


try:
    train("never", PARAMS, Cut(Path("state")))
except KeyboardInterrupt:
    torch.distributed.barrier()
train("resumed", PARAMS, training_state.TrainingState(Path("state")), seed=9)

# Divergences of which the mean lies at 0.15: 0 here, 0.3 there.
told, loss = [], ppo.ppo_loss
ppo.ppo_loss = lambda *given: (loss(*given)[0], loss(*given)[1] | {"losses/approx_kl": torch.tensor(0.3 * rank)})
for target in (0.1, 0.2):
    steps = []
    hook = Hook(lambda step, snapshot: steps.append(step))
    params = PARAMS.model_copy(update={"target_kl": target, "total_timesteps": 16 * 8})
    mappo.train(Signs(8, rank), small_team(), params, 16, "float32", 0, hook)
    told.append(steps)
Path(f"steps_{rank}.json").write_text(json.dumps(told))
distributed.leave()
'''


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    (folder / "train.py").write_text(SCRIPT)
    finish(torchrun(folder, "train.py", path=(ROOT, ROOT / "tests")))
    return folder


def left(folder, name, rank):
    weights, header = artefacts.read_tensors(folder / f"{name}_{rank}")
    own = {key: weights.pop(key) for key in ("kind", "episodes")}
    return weights, own, header["history"]


@pytest.mark.parametrize("name", ["full", "straight", "resumed"])
def test_all_processes_hold_the_same_weights_and_history(ran, name):
    (first, _, history), (second, _, same) = (left(ran, name, rank) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert history == same


def test_each_process_has_its_own_episodes(ran):
    (_, first, _), (_, second, _) = (left(ran, "straight", rank) for rank in (0, 1))
    assert not np.array_equal(first["episodes"], second["episodes"])


def own_seed(monkeypatch, seed, rank):
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    found = distributed.own_seed(seed)
    monkeypatch.undo()
    return found


def test_an_update_is_that_of_one_process_over_all_episodes(ran, monkeypatch):
    params = PARAMS.model_copy(update=FULL_BATCH)
    team, env = small_team(), Signs(16)
    torch.manual_seed(0)
    learner = mappo.TradingLearner(env, team.train(), team.critic(16), params.aux_coef)
    parts = []
    for rank in (0, 1):
        seed = own_seed(monkeypatch, 0, rank)
        generator = torch.Generator().manual_seed(seed)
        parts.append(ppo.collect(Signs(8, seed), learner, params.num_steps, generator))
    observation = {key: torch.cat([p.observation[key] for p in parts], dim=1) for key in parts[0].observation}
    tensors = [key for key in ppo.Rollout._fields if isinstance(getattr(parts[0], key), torch.Tensor)]
    rest = {key: torch.cat([getattr(p, key) for p in parts], dim=1) for key in tensors}
    whole = ppo.Rollout(observation, **rest)
    optimizer = torch.optim.Adam(learner.parameters(), params.learning_rate, eps=1e-5)
    generator = torch.Generator().manual_seed(0)
    history = ppo.optimise("one", env, learner, optimizer, whole, params, params.ent_coef, generator).diagnostics
    expected = nets.arrays(team) | {f"critic.{k}": v for k, v in nets.arrays(learner.critic).items()}
    found, _, told = left(ran, "full", 0)
    assert found.keys() == expected.keys()
    start = nets.arrays(small_team())
    assert max(np.abs(found[key] - start[key]).max() for key in start) > 5e-3  # three steps of 0.003
    for key, weight in expected.items():
        assert np.abs(found[key] - weight).max() < 1e-5, key  # measured: 6e-8
    assert told[0] == pytest.approx(history, abs=1e-5)


def test_a_resumed_run_goes_on_exactly(ran):
    for rank in (0, 1):
        (straight, episodes, history), (resumed, same, again) = (left(ran, n, rank) for n in ("straight", "resumed"))
        assert all(np.array_equal(straight[key], resumed[key]) for key in straight)
        assert all(np.array_equal(episodes[key], same[key]) for key in episodes)
        assert history == again


def test_they_stop_together_by_the_mean_divergence(ran):
    told = [json.loads((ran / f"steps_{rank}.json").read_text()) for rank in (0, 1)]
    assert told == [[[4], [12]]] * 2  # one epoch of four minibatches, three of them


def test_alone_a_process_keeps_its_seed_its_count_and_its_state():
    assert distributed.own_seed(42) == 42
    assert distributed.own_count(7, "num_envs") == 7
    state = {"generator": torch.arange(3), "account": [torch.zeros(2)]}
    assert distributed.own_state(distributed.gathered_state(state)) is state
    values = torch.arange(4.0)
    assert distributed.gathered(values) is values


def test_episodes_that_cannot_be_shared_equally_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 3)
    assert distributed.own_count(6, "marl.ppo.num_envs") == 2
    with pytest.raises(InputError, match=r"marl\.ppo\.num_envs: expected a multiple of the 3 processes, found 16"):
        distributed.own_count(16, "marl.ppo.num_envs")


def test_what_is_no_tensor_is_not_shared(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(TypeError, match="tensors, not int"):
        distributed.own_state({"episode": 3})


# The stage


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with the code, a small prepared market and experts that know nothing."""
    folder = tmp_path_factory.mktemp("marl")
    for name in ("algospace", "stages"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("requirements.lock", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["runtime"] |= RUNTIME.model_dump()
    params["data"] |= {"train_fraction": 0.5, "validation_fraction": 0.3}
    params["data"]["synthetic"] |= {"sessions": 60}
    params["gate1"] |= {"min_train_events": 100}
    params["marl"] |= SMALL
    params["marl"]["ppo"] |= STEPS
    params["marl"]["pretraining"]["agents"] = []
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    prepare = [sys.executable, "-m", "stages.prepare"]
    subprocess.run(prepare, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, check=True, timeout=150)
    forge_experts(folder)
    return folder


def forge_experts(folder):
    path = folder / "data/prepared/main_training_data.parquet"
    m5 = pd.read_parquet(path)
    for code in (SELECT, REPORT):  # a few candidates each will do
        rows = prepared.decision_rows(m5, code, "signals")
        m5.loc[m5.index[rows[6:]], "split"] = np.int8(EMBARGO)
    artefacts.write_parquet(path, m5)
    rng = np.random.default_rng(0)
    close_utc = m5["m30_close_utc"].dropna().drop_duplicates().reset_index(drop=True)
    vectors = pd.DataFrame(rng.uniform(-1, 1, (len(close_utc), LATENT)).astype(np.float32))
    vectors.columns = [f"regime_{i}" for i in range(LATENT)]
    vectors.insert(0, "close_utc", close_utc)
    artefacts.write_parquet(folder / "data/regimes/regime_vectors.parquet", vectors)
    exchange = load_params("market", MarketParams, folder / "params.yaml")
    torch.manual_seed(0)
    risk = risk_model.new(
        feature_names(LATENT), exchange.limits.max_units, load_params("mrms", MRMSParams, folder / "params.yaml")
    ).eval()
    artefacts.write_tensors(folder / "models/mrms/mrms.safetensors", nets.arrays(risk), risk.config)
    ends = prepared.decision_rows(m5, TRAIN, "signals")
    events = m5.iloc[ends]
    seen = states(events, prepared.regime_vectors_at(events, vectors))
    tick = prepared.contract(artefacts.read_json(folder / "data/prepared/manifest.json")).tick
    table = propose(risk, seen, events, tick).table(ends)
    artefacts.write_parquet(folder / "data/proposals/train_proposals.parquet", table)


def outputs(folder):
    names = ("models/marl", "metrics", "reports")
    return {p.relative_to(folder): p.read_bytes() for name in names for p in (folder / name).rglob("*") if p.is_file()}


def fresh(workspace, folder):
    shutil.copytree(workspace, folder)
    return folder


def test_the_stage_killed_on_two_processes_ends_with_the_same_bytes(workspace, tmp_path):
    straight = fresh(workspace, tmp_path / "straight")
    finish(torchrun(straight, "-m", "stages.marl", path=[straight]))
    written = outputs(straight)
    assert {str(name) for name in written} >= {
        "models/marl/marl.safetensors", "metrics/marl.json", "reports/marl/reliability.png"
    }  # fmt: skip

    killed = fresh(workspace, tmp_path / "killed")
    process = torchrun(killed, "-m", "stages.marl", path=[killed])
    deadline = time.monotonic() + 150
    while not list((killed / ".ckpt/marl").rglob("last.safetensors")):
        assert process.poll() is None, "training ended before it saved"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    end(process)
    assert not (killed / "models/marl").exists()
    output = finish(torchrun(killed, "-m", "stages.marl", path=[killed]))
    assert output.count("marl: seed_0 going on from step") == 1
    assert outputs(killed) == written
    assert not [path for path in (killed / ".ckpt/marl").iterdir() if path.is_dir()]
    log = (killed / "logs/marl.jsonl").read_text().splitlines()
    assert sum("seconds" in line for line in log) == 1  # the leader's
