"""Each section of ``params.yaml`` and the model of its owner."""

from typing import Any

from algospace.data.params import DataParams
from algospace.features.params import FeatureParams
from algospace.indicators.params import IndicatorParams
from algospace.market import MarketParams
from algospace.marl.params import MARLParams
from algospace.mrms.params import MRMSParams
from algospace.params import RuntimeParams
from algospace.pipeline.config import SECTIONS, load_params
from algospace.policy.params import ExportParams
from algospace.rde.params import RDEParams
from algospace.synergy import Gate1Params

_MODELS = (
    int, RuntimeParams, DataParams, IndicatorParams, Gate1Params, FeatureParams, MarketParams, RDEParams, MRMSParams,
    MARLParams, ExportParams,
)  # fmt: skip
OWNERS: dict[str, Any] = dict(zip(SECTIONS, _MODELS, strict=True))


def require_valid() -> None:
    """Refuse a ``params.yaml`` of which any section is not its owner's; `InputError` names the key."""
    for section, owner in OWNERS.items():
        load_params(section, owner)
