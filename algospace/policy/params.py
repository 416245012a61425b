"""Parameters of the evaluation."""

from pydantic import Field

from algospace.params import Params


class ExportParams(Params):
    """The `export` section: how a track record is judged."""

    min_trades: int = Field(ge=2)
    bootstrap_draws: int = Field(ge=1)
    random_draws: int = Field(ge=1)
    baseline_stop_atr: float = Field(gt=0)
    baseline_reward_risk: float = Field(gt=0)
    baseline_units: int = Field(ge=1)
