"""The params that turn bars into decisions, gathered for the stages that need them all."""

from typing import Any

from algospace.features import prepared
from algospace.features.params import FeatureParams
from algospace.indicators.params import IndicatorParams
from algospace.market import MarketParams
from algospace.marl.params import MARLParams
from algospace.params import RuntimeParams
from algospace.pipeline.config import load_params
from algospace.settings import Settings
from algospace.synergy import Gate1Params


def load_settings(manifest: dict[str, Any]) -> Settings:
    """Gather `Settings` from ``params.yaml`` and, for how bars are read, from the manifest of the prepared files."""
    return Settings(
        prepared.contract(manifest),
        prepared.reading(manifest),
        load_params("indicators", IndicatorParams),
        load_params("gate1", Gate1Params),
        load_params("features", FeatureParams),
        load_params("market", MarketParams),
        load_params("marl", MARLParams).gate2,
        load_params("seed", int),
        load_params("runtime", RuntimeParams).threads,
    )
