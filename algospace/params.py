"""What every section of ``params.yaml`` has in common; the sections live beside their owners."""

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """A frozen section of ``params.yaml``: no default in code, no unknown key, no silent type change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
