"""The command that says whether a run can begin."""

import argparse
import json
import os
import sys

from algospace.pipeline import readiness

OK, NOT_READY = 0, 1


def print_readiness(arguments: argparse.Namespace) -> int:
    """``algospace readiness``."""
    found = readiness.inspect()
    if arguments.json:
        print(json.dumps(readiness.as_json(found), indent=2, sort_keys=True, allow_nan=False))
    else:
        print("\n".join(readiness.lines(found, sys.stdout.isatty() and "NO_COLOR" not in os.environ)))
    return OK if found.ready else NOT_READY
