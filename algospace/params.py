"""What every section of ``params.yaml`` has in common, and the section that belongs to no part of the pipeline."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["float32", "bfloat16"]
MOST_THREADS = 4096


class Params(BaseModel):
    """A frozen section of ``params.yaml``: no default in code, no unknown key, no silent type change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RuntimeParams(Params):
    """The `runtime` section: where and how arithmetic is done."""

    threads: int = Field(ge=1, le=MOST_THREADS)
    device: Literal["cpu", "cuda"]
    precision: Precision
    clear_memory_interval: int = Field(ge=0)

    def in_float32(self) -> Self:
        """The same in float32: for networks too small to gain by bfloat16, and for LSTMs, which few CPUs run in it."""
        return self.model_copy(update={"precision": "float32"})
