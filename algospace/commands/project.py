"""Commands on ``params.yaml``."""

import argparse

from algospace.pipeline.config import load_params
from algospace.pipeline.owners import OWNERS
from algospace.pipeline.profiles import switch_profile


def check_params(arguments: argparse.Namespace) -> None:
    """``algospace params``."""
    for section, owner in OWNERS.items():
        load_params(section, owner)
    print("params.yaml: every section is valid")


def set_profile(arguments: argparse.Namespace) -> None:
    """``algospace profile``."""
    changes = switch_profile(arguments.name)
    print("\n".join(changes) or f"params.yaml: already at profile {arguments.name}")
