"""The search space of a sweep, ``sweep.yaml``: what is varied of a stage's params.

It stands in a file of its own because it changes no result: ``params.yaml`` holds what a stage is run with.
"""

import json
from pathlib import Path
from typing import Any

import optuna
from pydantic import Field, model_validator

from algospace.errors import InputError
from algospace.params import Params
from algospace.pipeline.config import PARAMS, load_params, lookup, read_yaml

SPACE = Path("sweep.yaml")
DIGITS = 3  # significant digits of a number drawn from a range: what is printed is what ran

Values = dict[str, Any]  # dotted key of params.yaml -> value


class Range(Params):
    """Numbers from ``low`` to ``high``, both included; whole ones when both are."""

    low: int | float
    high: int | float
    log: bool

    @model_validator(mode="after")
    def _rises(self) -> "Range":
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"expected low < high, above 0 where log is true, found {self.low} and {self.high}")
        return self

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Let a trial choose."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        drawn = float(f"{trial.suggest_float(key, self.low, self.high, log=self.log):.{DIGITS}g}")
        return min(max(drawn, self.low), self.high)

    def drawn(self, value: Any) -> Any:
        """What Optuna has to draw for a value; None when it cannot."""
        return value if isinstance(value, int | float) and self.low <= value <= self.high else None

    def ends(self) -> list[Any]:
        """Values that must be valid for every value to be."""
        return [self.low, self.high]


class Choices(Params):
    """One of some values, lists too."""

    choices: list[Any] = Field(min_length=2)

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Let a trial choose; Optuna keeps scalars only, so values travel as JSON."""
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in self.choices]))

    def drawn(self, value: Any) -> Any:
        """What Optuna has to draw for a value; None when it cannot."""
        return json.dumps(value) if value in self.choices else None

    def ends(self) -> list[Any]:
        """Values that must be valid for every value to be."""
        return self.choices


Space = dict[str, Range | Choices]


def load_space(name: str, model: type[Params], path: Path = SPACE) -> Space:
    """Read a stage's section of the search space: dotted keys of its own params.

    Raises
    ------
    InputError
        Naming the key that params.yaml lacks, or the value that its stage would refuse.
    """
    section: Space = load_params(name, dict[str, Range | Choices], path)
    space = {f"{name}.{key}": option for key, option in section.items()}
    if not space:
        raise InputError(f"{path}: {name}: expected keys to vary, found none")
    committed = read_yaml(PARAMS)
    for key, option in space.items():
        if lookup(committed, key) is None:
            raise InputError(f"{path}: {key}: expected a key of {PARAMS}, found none of that name")
        for value in option.ends():
            try:
                section_of(name, model, {key: value})
            except InputError as error:
                raise InputError(f"{path}: {key}: {error}") from None
    return space


def section_of(name: str, model: type[Params], values: Values) -> Params:
    """Build a stage's section of params.yaml with some values replaced."""
    return load_params(name, model, PARAMS, values)
