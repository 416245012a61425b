"""Read ``params.yaml``: one section at a time, validated by its owner's model; switch whole profiles."""

import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML

from algospace import artefacts
from algospace.errors import InputError
from algospace.params import Params

T = TypeVar("T")

PARAMS = Path("params.yaml")
SECTIONS = (
    "seed", "runtime", "data", "indicators", "gate1", "features", "market", "rde", "mrms", "marl", "export",
)  # fmt: skip
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# YAML 1.1 reads 1e-4 as a string, DVC and YAML 1.2 as a number: both spellings are numbers here.
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class RuntimeParams(Params):
    """What decides the bits of a result beside the seed."""

    threads: int = Field(ge=1)
    device: Literal["cpu", "cuda"]


def load_params(section: str, model: type[T], path: Path = PARAMS) -> T:
    """Return one section of ``params.yaml`` as its owner's model.

    Raises
    ------
    InputError
        For a missing section, an unknown key or a value of the wrong type or range, naming the key's path.
    """
    content = _read(path)
    if section not in content:
        raise InputError(f"{path}: {section}: expected this section, found none")
    try:
        adapter = TypeAdapter(Seed if section == "seed" else model)
        return adapter.validate_json(json.dumps(content[section]), strict=True)  # type: ignore[return-value]
    except ValidationError as error:
        raise InputError(f"{path}: {_describe(section, error.errors()[0], model)}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: expected the parameter file, found nothing there") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: expected YAML, found {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections, found {type(content).__name__}")
    unknown = sorted(map(str, set(content) - set(SECTIONS)))
    if unknown:
        raise InputError(f"{path}: {unknown[0]}: expected one of {', '.join(SECTIONS)}, found an unknown key")
    return {key: _numbers(key, value, path) for key, value in content.items()}


def _numbers(key: str, value: Any, path: Path) -> Any:
    """Strings in exponent notation become floats; what JSON cannot hold is refused by its key."""
    if isinstance(value, dict):
        return {name: _numbers(f"{key}.{name}", item, path) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(f"{key}.{i}", item, path) for i, item in enumerate(value)]
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{path}: {key}: expected a finite number, found {value}")
    if not isinstance(value, str | int | float | bool | None):
        raise InputError(f"{path}: {key}: expected text (quote it), found a {type(value).__name__}")
    return value


def _describe(section: str, error: ErrorDetails, model: object) -> str:
    where = ".".join([section, *map(str, error["loc"])])
    if error["type"] == "extra_forbidden":
        known = _keys_beside(model, error["loc"])
        return f"{where}: expected one of {', '.join(known)}, found an unknown key"
    if error["type"] == "missing":
        return f"{where}: expected a value, found none"
    wanted = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{where}: expected {wanted}, found {json.dumps(error['input'])}"


def _keys_beside(model: object, loc: tuple[int | str, ...]) -> list[str]:
    for name in loc[:-1]:
        field = getattr(model, "model_fields", {}).get(name)
        model = field.annotation if field else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def profiles() -> dict[str, dict[str, list[Any]]]:
    """Profile name -> dotted key -> [default value, the profile's value]."""
    text = resources.files("algospace.pipeline").joinpath("profiles.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, list[Any]]] = yaml.safe_load(text)
    return content


def switch_profile(name: str, path: Path = PARAMS) -> list[str]:
    """Write a profile's values into ``params.yaml``, comments kept; return ``key: old -> new`` lines.

    `default` brings back the default of every key that any profile changes; other keys are never touched.
    """
    known = profiles()
    if name not in {"default", *known}:
        raise InputError(f"profile: expected one of default, {', '.join(known)}, found {name}")
    values = {key: pair[0] for profile in known.values() for key, pair in profile.items()}
    if name != "default":
        values |= {key: pair[1] for key, pair in known[name].items()}
    _read(path)
    round_trip = YAML()
    round_trip.preserve_quotes = True
    round_trip.width = 200
    document = round_trip.load(path.read_text(encoding="utf-8"))
    changes = []
    for key, value in values.items():
        *parents, leaf = key.split(".")
        section = document
        for parent in parents:
            section = section.get(parent) if isinstance(section, Mapping) else None
        if not isinstance(section, dict) or leaf not in section:
            raise InputError(f"{path}: {key}: expected this key, found none")
        if section[leaf] != value:
            changes.append(f"{key}: {section[leaf]} -> {value}")
            section[leaf] = value
    if changes:
        text = StringIO()
        round_trip.dump(document, text)
        artefacts.write_bytes(path, text.getvalue().encode())
    return changes
