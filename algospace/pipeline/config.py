"""Read ``params.yaml``: one section at a time, validated by its owner's model."""

import copy
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from algospace.errors import InputError

T = TypeVar("T")

PARAMS = Path("params.yaml")
SECTIONS = (
    "seed", "runtime", "data", "indicators", "gate1", "features", "market", "rde", "mrms", "marl", "export",
)  # fmt: skip
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# YAML 1.1 reads 1e-4 as a string, DVC and YAML 1.2 as a number: where a number is wanted, both spellings are one.
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d{1,3}")


def load_params(section: str, model: type[T], path: Path = PARAMS, changes: Mapping[str, Any] | None = None) -> T:
    """Return one section of ``params.yaml`` as its owner's model.

    ``changes`` (dotted key -> value) stand in for what the file says.

    Raises
    ------
    InputError
        For a missing section, an unknown key or a value of the wrong type or range, naming the key's path.
    """
    content = read_yaml(path)
    if section not in content:
        raise InputError(f"{path}: {section}: expected this section, found none")
    for key, changed in (changes or {}).items():
        replace(content, key, changed)
    adapter: TypeAdapter[Any] = TypeAdapter(Seed if section == "seed" else model)
    value = content[section]
    try:
        try:
            found: T = _validate(adapter, value)
        except ValidationError as error:
            if not _read_exponents(value, error):
                raise
            found = _validate(adapter, value)
        return found
    except ValidationError as error:
        raise InputError(f"{path}: {_describe(section, error.errors()[0], model)}") from None


def lookup(content: dict[str, Any], key: str) -> Any:
    """Value of a dotted key, None where there is none."""
    value: Any = content
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def replace(content: dict[str, Any], key: str, value: Any) -> None:
    """Put a value in at a dotted key that is there."""
    *parents, leaf = key.split(".")
    for parent in parents:
        content = content[parent]
    content[leaf] = value


def with_exponents(value: Any) -> Any:
    """What YAML 1.1 read, with every text in exponent notation as the number that DVC and YAML 1.2 see there."""
    if isinstance(value, dict):
        return {key: with_exponents(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_exponents(item) for item in value]
    return float(value) if _is_exponent(value) else value


def _validate(adapter: TypeAdapter[Any], value: Any) -> Any:
    return adapter.validate_json(json.dumps(value), strict=True)


def _is_exponent(value: Any) -> bool:
    return isinstance(value, str) and _EXPONENT.fullmatch(value) is not None


def _read_exponents(value: Any, error: ValidationError) -> bool:
    """Turn strings in exponent notation into floats where a float was expected; say whether there was any."""
    found = False
    for item in error.errors():
        if item["type"] == "float_type" and item["loc"] and _is_exponent(item["input"]):
            parent = value
            for key in item["loc"][:-1]:
                parent = parent[key]
            parent[item["loc"][-1]] = float(item["input"])
            found = True
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """Read all sections as they stand; `InputError` names the line of what is no YAML, or the unknown section."""
    try:
        content = copy.deepcopy(_parsed(path, path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{path}: expected the parameter file, found nothing there") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected the parameter file, found a directory") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        found = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{where}: expected YAML, found {found}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections, found {type(content).__name__}")
    unknown = sorted(map(str, set(content) - set(SECTIONS)))
    if unknown:
        raise InputError(f"{path}: {unknown[0]}: expected one of {', '.join(SECTIONS)}, found an unknown key")
    for key, value in content.items():
        _refuse_what_json_lacks(str(key), value, path)
    return content


@lru_cache(maxsize=4)
def _parsed(path: Path, text: str) -> Any:
    """Parse a file once: a stage asks for a dozen sections, and reading them takes a fifth of a second each time."""
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    _refuse_repeated_keys(node, path)
    return loader.construct_document(node) if node else None


def _refuse_repeated_keys(node: Any, path: Path) -> None:
    """YAML lets the last of two equal keys win silently."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):  # of another kind is no key, as its reader will say
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise InputError(f"{path}:{line}: {key.value}: expected this key once, found it again")
                seen.add(key.value)
            _refuse_repeated_keys(value, path)


def _refuse_what_json_lacks(key: str, value: Any, path: Path) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise InputError(f"{path}: {key}: expected text for a key (quote it), found {name}")
            _refuse_what_json_lacks(f"{key}.{name}", item, path)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _refuse_what_json_lacks(f"{key}.{i}", item, path)
    elif (isinstance(value, float) or _is_exponent(value)) and not math.isfinite(float(value)):
        raise InputError(f"{path}: {key}: expected a finite number, found {value}")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise InputError(f"{path}: {key}: expected a number below 2^63, found a larger one")
    elif not isinstance(value, str | int | float | bool | None):
        raise InputError(f"{path}: {key}: expected text (quote it), found a {type(value).__name__}")


def _describe(section: str, error: ErrorDetails, model: object) -> str:
    where = ".".join([section, *map(str, error["loc"])])
    if error["type"] == "extra_forbidden":
        known = _keys_beside(model, error["loc"])
        return f"{where}: expected one of {', '.join(known)}, found an unknown key"
    if error["type"] == "missing":
        return f"{where}: expected a value, found none"
    wanted = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ").removeprefix("expected ")
    if ", found " in wanted:  # a rule across keys says itself what it found
        return f"{where}: expected {wanted}"
    found = "a mapping" if isinstance(error["input"], dict) else json.dumps(error["input"])
    return f"{where}: expected {wanted}, found {found[:100]}"


def _keys_beside(model: object, loc: tuple[int | str, ...]) -> list[str]:
    for name in (name for name in loc[:-1] if isinstance(name, str)):  # a number is a place in a list of models
        field = getattr(model, "model_fields", {}).get(name)
        choices = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((choice for choice in choices if hasattr(choice, "model_fields")), None)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
