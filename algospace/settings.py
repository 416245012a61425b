"""The params that decide how bars become decisions, together: what agents are judged under and a bundle carries."""

from typing import NamedTuple

from algospace.consensus import Gate2Params
from algospace.data.contracts import Contract
from algospace.data.params import DataParams
from algospace.features.params import FeatureParams
from algospace.indicators.params import IndicatorParams
from algospace.market import MarketParams
from algospace.synergy import Gate1Params


class Settings(NamedTuple):
    """A contract and the sections of ``params.yaml`` that a decision depends on."""

    contract: Contract
    data: DataParams  # how bar files are read
    indicators: IndicatorParams
    gate1: Gate1Params
    features: FeatureParams
    market: MarketParams
    gate2: Gate2Params
    seed: int
    threads: int  # another thread count may give other bits
