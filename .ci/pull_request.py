"""Report what a pull request changes: whether dvc.lock fits code and params, metrics and params against the base.

    python .ci/pull_request.py BASE [--rerun]

The report goes to ``comment.md``, to GitHub's step summary where there is one, and, with ``PR`` set, into a comment by
``gh``; a fork's token may not comment, so the summary holds it then. ``--rerun`` runs what dvc.lock does not fit, up to
`marl`, on outs that the remote has, or the cache where there is no remote or none that answers: the test bars stay
untouched. Exit code 1: dvc.lock does not fit.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

VALIDATION = [f"metrics/{stage}.json" for stage in ("prepare", "rde", "mrms", "marl")]
TEST = ["metrics/export.json"]
COMMENT = Path("comment.md")
LOCK = Path("dvc.lock")
RAW = "data/raw"
ABSENT = ("deleted", "not in cache")
MANY = 5  # changes of a stage that are named
ROWS = 50  # of a table in the comment, which may hold 65,536 characters; the step summary has all


def dvc(*arguments: str) -> str:
    """Run DVC; its output, or its words on stderr and the end."""
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"dvc {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def stale(base: str) -> dict[str, list[str]]:
    """Stages that dvc.lock does not fit, with what differs; no data is needed to see it.

    ``dvc repro --dry --allow-missing`` stops at the first such stage whose inputs are not here. So this reads what
    ``dvc status`` says, the absence of an output that the cache holds being no difference, and compares the lock with
    itself: an output that one stage wrote must be the one that the next has read. Bars that are not here cannot be
    compared with it: it must have changed since ``base`` where their ``.dvc`` files have.
    """
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    locked = _locked(LOCK.read_text(encoding="utf-8") if LOCK.exists() else "")
    written = {entry["path"]: entry["md5"] for stage in locked.values() for entry in stage.get("outs", [])}
    cached = set(written) - _in_git(stages)
    status = json.loads(dvc("status", "--json"))
    tracked = _absent_bars(status)
    found = {}
    for name in stages:
        differs = [what for entry in status.get(name, []) for what in _differing(entry, cached, tracked)]
        if RAW not in differs and _read(locked, name, RAW) and _other_bars(base, locked, name):
            differs.append(f"{RAW} (dvc.lock is of other bars)")
        for entry in locked.get(name, {}).get("deps", []):
            if written.get(entry["path"], entry["md5"]) != entry["md5"]:
                differs.append(f"{entry['path']} (dvc.lock has two)")
        if differs:
            found[name] = differs
    return found


def _locked(text: str) -> dict[str, Any]:
    """The stages of a dvc.lock."""
    found: dict[str, Any] = (yaml.safe_load(text) or {}).get("stages", {})
    return found


def _in_git(stages: dict[str, Any]) -> set[str]:
    """Outputs that git keeps, not the cache: no checkout lacks them."""
    entries = (
        entry for stage in stages.values() for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])
    )
    return {
        path
        for entry in entries
        if isinstance(entry, dict)
        for path, how in entry.items()
        if not how.get("cache", True)
    }


def _read(locked: dict[str, Any], stage: str, path: str) -> str | None:
    """Hash of what a stage read there, as a dvc.lock has it; None where it has none."""
    return next((entry["md5"] for entry in locked.get(stage, {}).get("deps", []) if entry["path"] == path), None)


def _other_bars(base: str, locked: dict[str, Any], stage: str) -> bool:
    """Whether the bars have changed since the base, by their ``.dvc`` files, and what the stage has read has not."""
    files = _git("diff", "--name-only", base, "--", f"{RAW}/*.dvc").splitlines()
    here = (Path(file).read_text(encoding="utf-8") if Path(file).exists() else "" for file in files)
    changed = any(
        _outs(_git("show", f"{base}:./{file}")) != _outs(text) for file, text in zip(files, here, strict=True)
    )
    return changed and _read(_locked(_git("show", f"{base}:./{LOCK}")), stage, RAW) == _read(locked, stage, RAW)


def _outs(text: str) -> list[str]:
    """Hashes of what a ``.dvc`` file tracks."""
    return [entry["md5"] for entry in (yaml.safe_load(text) or {}).get("outs", [])]


def _git(*arguments: str) -> str:
    """What git says; nothing where it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _absent_bars(status: dict[str, Any]) -> set[str]:
    """Files that ``dvc add`` tracks and that are not here: the folder that they lie in looks modified."""
    entries = (entry for name, found in status.items() if name.endswith(".dvc") for entry in found)
    changed = (entry.get("changed outs", {}) for entry in entries if isinstance(entry, dict))
    return {path for outs in changed for path, state in outs.items() if state in ABSENT}


def _differing(
    entry: str | dict[str, dict[str, str | dict[str, str]]], written: set[str], tracked: set[str]
) -> list[str]:
    """Names of what an entry of ``dvc status`` says is changed, without files that are not here."""
    if isinstance(entry, str):
        return [entry]  # "changed command"
    found = []
    for changed in entry.values():
        for path, state in changed.items():
            if isinstance(state, dict):  # the keys of a params file
                found += [f"{path} {key}" for key in state]
            elif not (state in ABSENT and path in written | tracked) and not any(
                Path(path) in Path(file).parents for file in tracked
            ):
                found.append(path)
    return found


def table(*arguments: str) -> str:
    """A table of DVC's in Markdown, or a word where nothing differs."""
    found = dvc(*arguments, "--md").strip()
    return found if found.count("\n") > 1 else "no difference"  # a header alone


def verdict(unfit: dict[str, list[str]], rerun: bool) -> str:
    """Say whether dvc.lock fits, and what each stage that it does not fit differs in."""
    if not unfit:
        return "`dvc.lock` fits code and params."
    lines = ["`dvc.lock` does not fit:", ""]
    for stage, differs in unfit.items():
        more = f" and {len(differs) - MANY} more" if len(differs) > MANY else ""
        lines.append(f"- {stage}: {', '.join(differs[:MANY])}{more}")
    advice = ""
    if rerun:
        advice = "The tables are of a run here, up to marl, of all stages whose outs no store had: another processor "
        advice += "gives them other digits. "
    return "\n".join([*lines, "", f"{advice}Run `dvc repro` and commit what it writes."])


def report(base: str, unfit: dict[str, list[str]], rerun: bool) -> str:
    """Validation first; test figures are marked."""
    parts = [
        "## dvc.lock", verdict(unfit, rerun),
        "## Validation", *(table("metrics", "diff", base, "--targets", path) for path in VALIDATION),
        "## Test bars: not for selection", table("metrics", "diff", base, "--targets", *TEST),
        "## Params", table("params", "diff", base),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def shortened(text: str) -> str:
    """The report with the first `ROWS` rows of each table."""
    parts = []
    for part in text.split("\n\n"):
        lines = part.splitlines()
        head = 2 + ROWS if part.startswith("|") else len(lines)
        left = len(lines) - head
        parts += ["\n".join(lines[:head])] + ([f"{left} more rows: step summary"] if left > 0 else [])
    return "\n\n".join(parts) + "\n"


def publish(text: str) -> None:
    """Write the report wherever it may be written."""
    COMMENT.write_text(shortened(text), encoding="utf-8")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.write(text)
    if number := os.environ.get("PR"):
        command = ["gh", "pr", "comment", number, "--body-file", str(COMMENT), "--edit-last", "--create-if-none"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = done.stderr.strip() if done.returncode else ""
        except FileNotFoundError:
            said = "gh is not installed"
        if said:
            print(f"no comment ({said}): the tables are in the summary and in {COMMENT}", file=sys.stderr)


def rerun() -> None:
    """Run what does not fit, up to `marl`; its outs come from the remote, or else from the cache.

    A remote that cannot be reached, as a fork's run cannot reach one that wants a secret, fails before any stage runs.
    """
    if dvc("remote", "list").strip():
        pulled = subprocess.run(
            ["dvc", "repro", "--pull", "--allow-missing", "marl"], capture_output=True, text=True, check=False
        )
        if pulled.returncode == 0:
            return
        said = pulled.stderr.strip() or pulled.stdout.strip()
        if "Running stage" in pulled.stdout:
            sys.exit(f"dvc repro --pull --allow-missing marl: {said}")
        print(f"the remote did not answer, going on with the cache: {said}", file=sys.stderr)
    dvc("checkout", "--allow-missing")
    dvc("repro", "marl")


def main() -> int:
    """Check, run again if asked, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a git revision")
    parser.add_argument("--rerun", action="store_true")
    arguments = parser.parse_args()
    unfit = stale(arguments.base)
    if unfit and arguments.rerun:
        try:
            rerun()
        except SystemExit as failed:
            publish(f"## dvc.lock\n\n{verdict(unfit, rerun=False)}\n\nThe run here failed: {failed}\n")
            raise
    text = report(arguments.base, unfit, arguments.rerun)
    publish(text)
    print(text)
    return 1 if unfit else 0


if __name__ == "__main__":
    sys.exit(main())
