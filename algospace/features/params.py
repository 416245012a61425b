"""The `features` section of ``params.yaml``."""

from pydantic import Field

from algospace.params import Params


class FeatureParams(Params):
    """The `features` section: rows per window."""

    window_30m: int = Field(ge=1)
    window_5m: int = Field(ge=1)
    window_arbitrage: int = Field(ge=1)
    window_regime: int = Field(ge=1)
