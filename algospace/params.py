"""What every section of ``params.yaml`` has in common, and the section that belongs to no part of the pipeline."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Params(BaseModel):
    """A frozen section of ``params.yaml``: no default in code, no unknown key, no silent type change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RuntimeParams(Params):
    """The `runtime` section: where and how arithmetic is done."""

    threads: int = Field(ge=1)
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16"]
    clear_memory_interval: int = Field(ge=0)
