"""Commands on ``params.yaml``."""

import argparse

from algospace.pipeline.owners import require_valid
from algospace.pipeline.profiles import switch_profile


def check_params(arguments: argparse.Namespace) -> None:
    """``algospace params``."""
    require_valid()
    print("params.yaml: every section is valid")


def set_profile(arguments: argparse.Namespace) -> None:
    """``algospace profile``."""
    changes = switch_profile(arguments.name)
    print("\n".join(changes) or f"params.yaml: already at profile {arguments.name}")
