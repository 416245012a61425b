"""Parameters of the regime detection engine."""

from typing import Self

from pydantic import Field, model_validator

from algospace import training
from algospace.params import Params
from algospace.rde.communication import CommunicationParams
from algospace.rde.space import AlarmParams


class RDEParams(Params):
    """The `rde` section."""

    patch: int = Field(ge=1)
    d_model: int = Field(ge=2, multiple_of=2)
    n_heads: int = Field(ge=2, multiple_of=2)  # with an odd number inference leaves its one path (decision 0003)
    n_layers: int = Field(ge=1)
    d_ff: int = Field(ge=1)
    latent_dim: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    beta: float = Field(ge=0)
    beta_warmup_epochs: int = Field(ge=0)
    free_bits: float = Field(ge=0)
    forecast: float = Field(ge=0)
    optimizer: training.AccumulatingParams
    folds: int = Field(ge=2)
    archetypes: int = Field(ge=2, le=8)
    min_correlation: float = Field(gt=0, lt=1)
    alarms: AlarmParams
    communication: CommunicationParams

    def taught_by(self, evidence: float) -> Self:
        """These parameters with the forecast's weight cut to what train can teach (`Windows.evidence`)."""
        return self.model_copy(update={"forecast": self.forecast * evidence})

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(f"expected d_model to be a multiple of n_heads ({self.n_heads}), found {self.d_model}")
        return self
