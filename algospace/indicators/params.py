"""The section ``indicators`` of ``params.yaml``: the sections of the modules, and what they share."""

from pydantic import Field, field_validator

from algospace.indicators.activity import ActivityParams
from algospace.indicators.fvg import FVGParams
from algospace.indicators.lvn import LVNParams
from algospace.indicators.mlmi import MLMIParams
from algospace.indicators.mmd import MMDParams
from algospace.indicators.nwrqk import NWRQKParams
from algospace.params import Params

REFERENCES = 7  # of mmd12, whose rows hold as many scores and five moments


class IndicatorParams(Params):
    """All indicators; ``atr``, ``volume_window`` and ``momentum_bars`` are counted in bars."""

    mlmi: MLMIParams
    nwrqk: NWRQKParams
    fvg: FVGParams
    lvn: LVNParams
    mmd: MMDParams
    activity: ActivityParams
    atr: int = Field(ge=2)
    volume_window: int = Field(ge=1)
    momentum_bars: int = Field(ge=1)

    @field_validator("mmd")
    @classmethod
    def _fills_its_rows(cls, mmd: MMDParams) -> MMDParams:
        if mmd.kind == "mmd12" and mmd.references != REFERENCES:
            raise ValueError(f"expected {REFERENCES} references for rows of kind mmd12, found {mmd.references}")
        return mmd
