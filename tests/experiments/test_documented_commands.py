"""Every command in a block of README or docs is run on the pipeline of seconds, or is in `ELSEWHERE` with the reason.

Of `dvc exp run` the keys are tried: it is queued.
"""

import gzip
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Command, or what it begins with -> the test that runs it, or why none does.
ELSEWHERE = {
    "make repro": "tests/test_pipeline.py runs its stages; the install is what CI begins with",
    "make test": "this is it",
    "make rde-distributed": "tests/test_distributed.py",
    "make marl-distributed": "tests/test_shared_rollouts.py",
    "make rde-machines": "tests/test_distributed.py, two machines being two commands on one",
    "make marl-machines": "tests/test_shared_rollouts.py; tests/test_packaging.py holds what it calls",
    "source .venv/bin/activate": "the environment that runs this test is active",
    "pip install -c requirements.lock -c requirements-dev.lock -e": "needs a package index",
    "make sweep": "tests/experiments/test_sweep_of_stages.py runs what it calls",
    "algospace sweep": "tests/experiments/test_sweep_of_stages.py",
    "dvc exp run marl -S rde.beta=0.01": "tests/experiments/test_dvc_experiments.py",
    "dvc exp run marl --queue -S": "tests/experiments/test_dvc_experiments.py",
    "dvc queue start --jobs 1": "tests/experiments/test_dvc_experiments.py",
    "dvc exp apply NAME": "tests/experiments/test_dvc_experiments.py",
    "dvc exp remove NAME": "tests/experiments/test_dvc_experiments.py",
    "dvc gc --force --workspace": "tests/experiments/test_dvc_experiments.py",
    "dvc remote add --default store s3://": "tests/experiments/test_remote.py, against a server on loopback",
    "dvc remote modify store endpointurl": "tests/experiments/test_remote.py, against a server on loopback",
    "git push --tags": "tags go by git alone",
}
# What stands for something of the reader's.
MEANS = {
    "BUNDLE": "models/bundle", "BARS": "bars.csv.gz", "DIR": "out", "OTHER": "models/bundle", "P": "params.yaml",
    "FILE": "account.json", "T": "2022-01-01", "/mnt/store": "../store",
}  # fmt: skip
MAY_EXIT = {"algospace monitor": (0, 1)}  # bars that are not like train are no failure


def commands(page):
    """Lines of the blocks of a page that are written without a language: what a reader types."""
    found, inside, language = [], False, ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            inside, language = not inside, line.strip().strip("`")
        elif inside and language in ("", "sh", "console"):
            text = re.split(r"\s+#\s", line)[0].strip()
            parts = re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', text)  # at what stands outside of quotes
            found += [command.strip() for command in parts if command.strip()]
    return found


def elsewhere(command):
    return next((reason for start, reason in ELSEWHERE.items() if command.startswith(start)), None)


def as_typed(command):
    """The command with the reader's own names filled in; what is optional is given."""
    words = re.sub(r"[\[\]]", "", command) if "[-" in command else command
    for name, meant in MEANS.items():
        words = re.sub(rf"(?<![\w/.]){re.escape(name)}(?![\w/.])", meant, words)
    if words.startswith("dvc exp run"):  # the keys are what a page can get wrong: DVC checks them here too
        words = words.replace("--temp ", "") + " --queue"
    return words


def write(table, *paths):
    text = table.assign(datetime=table["datetime"].dt.strftime("%Y-%m-%d %H:%M:%S")).to_csv(index=False)
    for path in paths:
        path.write_bytes(gzip.compress(text.encode()))


@pytest.fixture(scope="module")
def already():
    """What an earlier page has had run."""
    return set()


@pytest.fixture
def reader(project):
    """A project with what the pages take for granted: bars, an account, `algospace` on the path."""
    folder = project.folder
    bars = pd.read_parquet(folder / "data/prepared/main_training_data.parquet")
    bars = bars.rename(columns={"start_utc": "datetime"})
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    half_hours = bars.groupby(bars["datetime"].dt.floor("30min")).agg(how).reset_index()
    home = folder.with_name("home")
    home.mkdir()
    write(bars[["datetime", *how]], folder / "bars.csv.gz", folder / "spy.csv.gz", home / "spy.csv.gz")
    write(half_hours, folder / "nq_30min.csv.gz")
    shutil.copy(folder / "params.yaml", folder / "nq.yaml")
    (account,) = re.findall(r"`({.*})` is enough", (ROOT / "docs/bundle.md").read_text())
    (folder / "account.json").write_text(account)
    (home / "bin").mkdir()
    (home / "bin/algospace").write_text('#!/bin/sh\nexec python -m algospace.cli "$@"\n')
    (home / "bin/algospace").chmod(0o755)
    project.ok("dvc", "remote", "add", "--default", "kept", str(folder.with_name("kept")))
    project.environment |= {"HOME": str(home), "PATH": f"{home / 'bin'}:{project.environment['PATH']}"}
    return project


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_does_what_it_says(page, reader, already):
    for command in commands(page):
        words = as_typed(command)
        if elsewhere(command) or words in already:
            continue
        if words.startswith("algospace "):  # what changes the project is run for every page
            already.add(words)
        done = reader.run("bash", "-c", words)
        good = next((codes for start, codes in MAY_EXIT.items() if command.startswith(start)), (0,))
        assert done.returncode in good, f"{page.name}: {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def test_no_reason_is_left_without_its_command():
    typed = [command for page in PAGES for command in commands(page)]
    assert len(typed) > 30
    unused = [start for start in ELSEWHERE if not any(command.startswith(start) for command in typed)]
    assert not unused
    for reason in ELSEWHERE.values():
        for name in re.findall(r"tests/[\w/]+\.py", reason):
            assert (ROOT / name).is_file()
