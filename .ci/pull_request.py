"""Report what a pull request changes: whether dvc.lock fits code and params, metrics and params against the base.

    python .ci/pull_request.py BASE [--rerun]

The report goes to ``comment.md``, to GitHub's step summary where there is one, and, with ``PR`` set, into a comment by
``gh``; a fork's token may not comment, so the summary holds it then. ``--rerun`` runs what dvc.lock does not fit, up to
`marl`, on outs that the cache or the remote has: the test bars stay untouched. Exit code 1: dvc.lock does not fit.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

VALIDATION = [f"metrics/{stage}.json" for stage in ("prepare", "rde", "mrms", "marl")]
TEST = ["metrics/export.json"]
COMMENT = Path("comment.md")


def dvc(*arguments: str) -> str:
    """Run DVC; its output, or its words on stderr and the end."""
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"dvc {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def stale() -> list[str]:
    """Stages that dvc.lock does not fit; no data is needed to see it.

    Behind the first of them DVC may stop at an output that nobody has made yet, so there may be more.
    """
    command = ["dvc", "repro", "--dry", "--allow-missing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]
    if done.returncode != 0 and not found:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return found


def table(*arguments: str) -> str:
    """A table of DVC's in Markdown, or a word where nothing differs."""
    found = dvc(*arguments, "--md").strip()
    return found if found.count("\n") > 1 else "no difference"  # a header alone


def report(base: str, unfit: list[str], rerun: bool) -> str:
    """Validation first; test figures are marked."""
    verdict = "fits code and params" if not unfit else f"does not fit: {', '.join(unfit)} changed"
    if unfit and rerun:
        verdict += " (run again here, up to marl; commit what `dvc repro` writes)"
    parts = [
        "## dvc.lock", f"`dvc.lock` {verdict}.",
        "## Validation", table("metrics", "diff", base, "--targets", *VALIDATION),
        "## Test bars: not for selection", table("metrics", "diff", base, "--targets", *TEST),
        "## Params", table("params", "diff", base),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def publish(text: str) -> None:
    """Write the report wherever it may be written."""
    COMMENT.write_text(text, encoding="utf-8")
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


def main() -> int:
    """Check, run again if asked, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a git revision")
    parser.add_argument("--rerun", action="store_true")
    arguments = parser.parse_args()
    unfit = stale()
    if unfit and arguments.rerun:
        dvc("repro", "--allow-missing", *(["--pull"] if dvc("remote", "list").strip() else []), "marl")
    text = report(arguments.base, unfit, arguments.rerun)
    publish(text)
    print(text)
    return 1 if unfit else 0


if __name__ == "__main__":
    sys.exit(main())
