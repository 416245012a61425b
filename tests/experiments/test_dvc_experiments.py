"""docs/experiments.md on a real repository: run, queue, show, apply, and what the tables of differences print."""

import json
import re
import time

import yaml

LR = "marl.ppo.learning_rate"


def metrics(project, stage):
    return json.loads((project.folder / f"metrics/{stage}.json").read_text())


def value(project, key):
    found = yaml.safe_load((project.folder / "params.yaml").read_text())
    for name in key.split("."):
        found = found[name]
    return found


def waited(project, name):
    """State of a queued task once it has ended."""
    for _ in range(600):
        line = next(line for line in project.ok("dvc", "queue", "status").splitlines() if name in line)
        if not re.search("Queued|Running", line):
            return line
        time.sleep(0.5)
    raise AssertionError(line)


def test_an_experiment_stops_before_export_and_its_tables_show_what_it_did(project):
    before = {stage: metrics(project, stage) for stage in ("mrms", "rde", "marl", "export")}
    uses = (project.folder / "logs/test_uses.jsonl").read_text()
    assert project.ok("dvc", "metrics", "diff") == "", "nothing differs, nothing is printed"
    assert project.ok("dvc", "params", "diff") == ""

    project.ok("dvc", "exp", "run", "--name", "wide", "marl", "-S", "rde.beta=0.5")
    assert metrics(project, "export") == before["export"]
    assert (project.folder / "logs/test_uses.jsonl").read_text() == uses, "no test bar was looked at"
    assert metrics(project, "rde") != before["rde"]

    (changed,) = json.loads(project.ok("dvc", "params", "diff", "main", "--json")).values()
    assert {key: (entry["old"], entry["new"]) for key, entry in changed.items()} == {"rde.beta": (0.001, 0.5)}
    diff = json.loads(project.ok("dvc", "metrics", "diff", "main", "--json"))
    assert set(diff) <= {f"metrics/{stage}.json" for stage in ("rde", "mrms", "marl")}
    kl = diff["metrics/rde.json"]["kl"]
    assert kl["old"] == before["rde"]["kl"]
    assert kl["new"] == metrics(project, "rde")["kl"]
    for entry in (entry for of_file in diff.values() for entry in of_file.values()):
        for side in (entry["old"], entry["new"]):
            if isinstance(side, float):
                assert side == float(f"{side:.6g}"), "six digits"

    page = project.folder / "plots"
    project.ok("dvc", "plots", "diff", "main", "--out", str(page))
    text = (page / "index.html").read_text()
    for part in ("train_loss_tsv", "validation_daily", "equity on test bars (not for selection)", "rde_latent_png"):
        assert part in text
    assert {"main_reports_marl_reliability.png", "workspace_reports_rde_latent.png"} <= {
        file.name for file in (page / "static").iterdir()
    }

    shown = project.ok("make", "experiments")
    heads = re.findall(r"[\w.]+", next(line for line in shown.splitlines() if "Experiment" in line))
    assert heads[0] == "Experiment"
    assert "rde.beta" in heads
    assert "reconstruction_r2" in heads
    assert len(heads) <= 8, heads
    assert "wide" in shown

    project.ok("git", "checkout", "--quiet", ".")
    project.ok("dvc", "checkout")
    assert project.ok("dvc", "metrics", "diff") == ""

    kept = project.digests()
    project.ok("dvc", "exp", "remove", "wide")
    project.ok("dvc", "gc", "--force", "--workspace")
    project.ok("dvc", "checkout")
    assert project.digests() == kept


def test_a_queue_runs_elsewhere_and_is_taken_over(project):
    before = metrics(project, "marl")
    project.ok("dvc", "exp", "run", "--queue", "marl", "-S", f"{LR}=0.001,0.002")
    names = re.findall(r"^\w{7}\s+(\S+)\s", project.ok("dvc", "queue", "status"), re.MULTILINE)
    assert len(names) == 2
    project.ok("dvc", "queue", "remove", names[1])
    project.ok("dvc", "queue", "start", "--jobs", "1")
    line = waited(project, names[0])
    assert "Success" in line, line + project.run("dvc", "queue", "logs", names[0]).stdout
    assert metrics(project, "marl") == before, "this folder stays as it is"
    project.ok("dvc", "exp", "apply", names[0])
    assert value(project, LR) in (0.001, 0.002)
    assert metrics(project, "marl") != before
    assert "up to date" in project.ok("dvc", "status", "marl")
    changed = json.loads(project.ok("dvc", "params", "diff", "--json"))["params.yaml"]
    assert list(changed) == [LR]


def test_a_temporary_copy_runs_it_and_this_folder_stays_as_it_is(project):
    before = project.digests()
    project.ok("dvc", "exp", "run", "--temp", "--name", "apart", "mrms", "-S", "mrms.hidden_dim=12")
    assert project.digests() == before
    assert project.ok("git", "status", "--short", "--untracked-files=no") == ""
    assert project.ok("dvc", "exp", "list", "--name-only").split() == ["apart"]
    project.ok("dvc", "exp", "apply", "apart")
    assert value(project, "mrms.hidden_dim") == 12
    assert "up to date" in project.ok("dvc", "status", "mrms")


def test_the_artifact_is_the_bundle_and_a_tag_brings_it_back(project, tmp_path):
    declared = yaml.safe_load((project.folder / "dvc.yaml").read_text())["artifacts"]["bundle"]
    assert (project.folder / declared["path"]).is_dir()
    project.ok("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    project.commit("a remote")
    project.ok("git", "tag", "-a", "model-1", "-m", "why")
    project.ok("dvc", "push", "export")
    clone = project.copy(tmp_path / "clone", command=("git", "clone", "--quiet"))
    clone.ok("git", "checkout", "--quiet", "model-1")
    clone.ok("dvc", "pull", declared["path"])
    assert "whole" in clone.algospace("verify", declared["path"]).stdout
    assert not (clone.folder / "models/marl/marl.safetensors").exists(), "nothing else was fetched"
