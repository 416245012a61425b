"""RDE training on two processes: what one process gives, to a tolerance; killed, or as two machines, the same bytes."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import _workspace
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from savers import RUNTIME

from algospace import artefacts, distributed, nets, training
from algospace.data.splits import REPORT, SELECT, TRAIN
from algospace.features import prepared
from algospace.pipeline import stage
from algospace.pipeline.config import load_params
from algospace.rde.examples import Examples, Windows
from algospace.rde.fit import fit
from algospace.rde.params import RDEParams

ROOT = Path(__file__).parents[1]
ROWS = 900
SMALL = {"patch": 12, "d_model": 8, "n_heads": 2, "d_ff": 8, "latent_dim": 3, "beta_warmup_epochs": 1}
STEPS = {"batch_size": 15, "samples_per_epoch": 315, "epochs": 8, "learning_rate": 0.003}  # odd: unequal shares


pytestmark = pytest.mark.usefixtures("one_thread")


def regime_rows():
    """Twelve mixtures of three slow walks."""
    rng = np.random.default_rng(0)
    walks = np.zeros((ROWS, 3))
    for row in range(1, ROWS):
        walks[row] = 0.95 * walks[row - 1] + 0.3 * rng.normal(size=3)
    rows = (walks @ rng.normal(size=(3, 12))).astype(np.float32)
    ends = np.arange(95, ROWS)
    split = np.repeat([TRAIN, SELECT, REPORT], [405, 200, 200]).astype(np.int8)
    stamps = 1_800_000 * np.arange(ROWS, dtype=np.int64)
    return prepared.RegimeRows(rows, np.zeros((ROWS, 8), np.float32), stamps, ends, split)


def half_hours():
    """What the stage reads of the main table: a row per half hour."""
    moves = 0.001 * np.random.default_rng(1).normal(size=ROWS)
    return pd.DataFrame(
        {
            "m30_row": np.arange(ROWS),
            "m30_close_utc": pd.to_datetime(regime_rows().close_utc, unit="ms", utc=True),
            "m30_close": 100 * np.exp(np.cumsum(moves)),
            "m30_volume": np.full(ROWS, 1000.0),
            "contract_id": np.zeros(ROWS, np.int32),
            "split": np.full(ROWS, TRAIN, np.int8),
        }
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Make a folder with the code and what the stage reads."""

    def make(dropout):
        changes = {"runtime": RUNTIME.model_dump(), "rde": SMALL | {"dropout": dropout}, "rde.optimizer": STEPS}
        changes["rde.communication.optimizer"] = {"epochs": 1, "samples_per_epoch": 64}
        values = {f"{section}.{key}": value for section, keys in changes.items() for key, value in keys.items()}
        folder = _workspace.workspace(tmp_path_factory.mktemp("rde") / "workspace", values)
        prepared.write_regime_rows(folder / "data/prepared/rde_training_data.h5", regime_rows(), {})
        artefacts.write_parquet(folder / "data/prepared/main_training_data.parquet", half_hours())
        artefacts.write_json(folder / "data/prepared/manifest.json", {"source": {"kind": "synthetic"}})
        return folder

    return make


def torchrun(folder, module="stages.rde", how=("--standalone", "--nproc-per-node=2")):
    command = ["-m", "torch.distributed.run", *how, "-m", module]
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=_workspace.environment(PYTHONPATH=str(folder)),
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process):
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def alone(folder):
    """Weights and history of one process."""
    table = regime_rows()
    train, select = (table.window_end[table.split == code] for code in (TRAIN, SELECT))

    windows = Windows(table.rows, 96, 192)
    known, later = windows.later((train, select))
    params = load_params("rde", RDEParams, folder / "params.yaml")
    seed = load_params("seed", int, folder / "params.yaml")
    model, run = fit(
        lambda chosen: Examples(windows.cut(train[chosen]), known[chosen]), len(train),
        Examples(windows.cut(select), later), params.taught_by(windows.evidence(train)), RUNTIME, seed,
        training.Unsaved(),
    )  # fmt: skip
    return nets.arrays(model), run


def losses(folder):
    lines = (folder / "metrics/curves/rde/plots/metrics/validation/loss.tsv").read_text().splitlines()[1:]
    return np.array([float(line.split("\t")[1]) for line in lines])


def outputs(folder):
    names = ("models", "data/regimes", "metrics")
    return {p.relative_to(folder): p.read_bytes() for name in names for p in (folder / name).rglob("*") if p.is_file()}


def test_two_processes_give_the_weights_of_one(workspace):
    folder = workspace(dropout=0.0)
    code, output = finish(torchrun(folder))
    assert code == 0, output
    expected, run = alone(folder)
    found, _ = artefacts.read_tensors(folder / "models/rde/rde.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        if name in ("centre", "axes"):
            continue  # of the space, which the stage turns after training
        far = np.abs(found[name] - weight)
        if name.endswith("in_proj_bias"):
            far[8:16] = 0  # the keys' bias: softmax cancels it, so its gradient is rounding, which AdamW scales up
        assert far.max() < 1e-4, name  # measured: 2e-5
    assert losses(folder) == pytest.approx([row["validation/loss"] for row in run.history], abs=1e-4)


@pytest.fixture(scope="module")
def straight(workspace):
    """A finished run, undisturbed, with dropout."""
    folder = workspace(dropout=0.1)
    code, output = finish(torchrun(folder))
    assert code == 0, output
    return folder


def test_two_machines_that_meet_give_the_same_bytes(workspace, straight):
    folder = workspace(dropout=0.1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    how = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}")
    machines = [torchrun(folder, how=how) for _ in range(2)]
    for code, output in map(finish, machines):
        assert code == 0, output
    assert outputs(folder) == outputs(straight)


def test_with_dropout_they_agree_loosely_and_resume_with_the_same_bytes(workspace, straight):
    _, run = alone(straight)
    assert losses(straight)[-1] == pytest.approx(run.history[-1]["validation/loss"], rel=0.02)  # measured: 0.005

    killed = workspace(dropout=0.1)
    process = torchrun(killed)
    deadline = time.monotonic() + 60
    while not list((killed / ".ckpt/rde").rglob("last.safetensors")):
        assert process.poll() is None, "training ended before it saved"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:  # torchrun's are groups of their own
        each.kill()
    finish(process)
    assert not (killed / "models").exists()
    code, output = finish(torchrun(killed))
    assert code == 0, output
    assert output.count("rde: network going on from step") == 1
    assert outputs(killed) == outputs(straight)
    assert not [path for path in (killed / ".ckpt/rde").iterdir() if path.is_dir()]
    log = (killed / "logs/rde.jsonl").read_text().splitlines()
    assert sum("seconds" in line for line in log) == 1  # the leader's


FAILING = """
import os
import torch.distributed as dist
from algospace.errors import InputError
from algospace.params import RuntimeParams
from algospace.pipeline import stage

def main():
    runtime = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)
    stage.make_deterministic(runtime, 0)
    if os.environ["RANK"] == "1":
        raise InputError("broken")
    dist.barrier()

if __name__ == "__main__":
    stage.run(main, scales=True)
"""


def test_a_failing_process_ends_the_others(workspace):
    folder = workspace(dropout=0.0)
    (folder / "failing.py").write_text(FAILING)
    code, output = finish(torchrun(folder, "failing"))
    assert code != 0
    assert "error: broken" in output


def test_a_stage_that_does_not_scale_refuses(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as stopped:
        stage.run(lambda: pytest.fail("it ran"))
    assert stopped.value.code == 2
    assert "expected one process, found 2" in capsys.readouterr().err


def test_one_process_leads_itself():
    assert (distributed.processes(), distributed.rank(), distributed.leads()) == (1, 0, True)
    assert distributed.from_leader(0.3) == 0.3
    assert torch.equal(distributed.total(torch.tensor(2.0)), torch.tensor(2.0))
