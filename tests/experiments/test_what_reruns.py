"""The table of docs/experiments.md, row by row: which change reruns which stage, as DVC sees it."""

import contextlib
import re
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from algospace.pipeline.status import STAGES

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs/experiments.md").read_text().split("## What reruns what")[1].split("\n## ")[0]
ROWS = [[cell.strip() for cell in line.strip("| ").split("|")] for line in SECTION.splitlines() if line[:2] == "| "][1:]


def stages(cell):
    return set() if cell == "none" else set(cell.split(", "))


def append(path, text):
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def change(project, words):
    """Do in a project what a row's first cell says."""
    folder, named = project.folder, re.findall(r"`([^`]+)`", words)
    if words == "a comment in `params.yaml`":
        append(folder / "params.yaml", "# a word\n")
    elif words == "the order of keys in `params.yaml`":
        params = yaml.safe_load((folder / "params.yaml").read_text())
        (folder / "params.yaml").write_text(yaml.safe_dump(dict(reversed(params.items()))))
    elif words == "one more month of bars in `data/raw`":
        append(folder / "data/raw/2024-03.csv", "time,open,high,low,close,volume\n")
    elif words == "README, docs, tests, `sweep.yaml`, `algospace/cli.py`":
        for name in ("README.md", "docs/a.md", "tests/test_a.py", *named):
            (folder / name).parent.mkdir(exist_ok=True)
            append(folder / name, "# a word\n")
    elif (folder / named[0]).is_file():
        append(folder / named[0], "# a word\n")
    else:
        project.params(**{named[0].replace(".", "__"): 0.0123 if named[0] != "seed" else 7})


@pytest.fixture(scope="module")
def shared(finished, tmp_path_factory):
    """One copy for all rows, brought back after each."""
    return finished.copy(tmp_path_factory.mktemp("rows") / "project")


def direct(project):
    with contextlib.chdir(project.folder):  # DVC names stages relative to it
        return {name for name in Repo().status() if name in STAGES}


def readers(changed):
    """Stages that read, directly or not, what these write."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    found = set(changed)
    for name in STAGES:  # in the order of the pipeline
        written = {out for other in found for out in declared[other]["outs"]}
        if written & set(declared[name]["deps"]):
            found.add(name)
    return found - set(changed)


def test_the_table_is_there():
    assert len(ROWS) > 15
    assert {"rde.beta", "market.cost_multiplier", "requirements.lock"} <= set(re.findall(r"`([^`]+)`", SECTION))


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_table(shared, row):
    words, runs, may_run = row
    assert direct(shared) == set()
    change(shared, words)
    found = direct(shared)
    shared.ok("git", "checkout", "--quiet", ".")
    shared.ok("git", "clean", "--quiet", "--force", "-d")
    shared.ok("git", "clean", "--quiet", "--force", "-d", "-x", "data/raw")  # bars are ignored by git
    assert found == stages(runs)
    assert readers(found) == stages(may_run)


def test_dvc_repro_goes_by_the_same_table(project):
    """A comment in a source file runs its stage; when that writes the same bytes, no stage after it."""
    change(project, "a line of `algospace/rde/fit.py`, even a comment")
    dry = project.ok("dvc", "repro", "--dry")
    assert re.findall(r"Running stage '(\w+)'", dry)[0] == "rde"
    done = project.ok("dvc", "repro")
    assert re.findall(r"Running stage '(\w+)'", done) == ["rde"]
    append(project.folder / "algospace/rde/fit.py", "# another\n")
    project.ok("dvc", "commit", "--force", "rde")
    assert "Running" not in project.ok("dvc", "repro"), "on the word of who commits, even that run is skipped"
