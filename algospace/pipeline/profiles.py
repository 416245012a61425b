"""Profiles: named sets of values in ``params.yaml``, and the way to switch between them."""

import json
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from algospace import artefacts
from algospace.errors import InputError
from algospace.params import Params
from algospace.pipeline.config import PARAMS, load_params, read_yaml

P = TypeVar("P", bound=Params)


def load_profile(name: str, section: str, model: type[P], path: Path = PARAMS) -> P:
    """Return a section of ``params.yaml`` as it would be under a profile, whatever is switched on now."""
    own = {key: value for key, value in _values(name).items() if key.startswith(f"{section}.")}
    return load_params(section, model, path, own)


def profiles() -> dict[str, dict[str, list[Any]]]:
    """Profile name -> dotted key -> [default value, the profile's value]."""
    text = resources.files("algospace.pipeline").joinpath("profiles.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, list[Any]]] = yaml.safe_load(text)
    return content


def switch_profile(name: str, path: Path = PARAMS) -> list[str]:
    """Write a profile's values into ``params.yaml``, its comments and layout kept; return ``key: old -> new`` lines.

    `default` brings back the default of every key that any profile changes; other keys are never touched.
    """
    values = _values(name)
    read_yaml(path)
    text = path.read_text(encoding="utf-8")
    changes = []
    for key, value in values.items():
        node = _node(yaml.compose(text, Loader=yaml.SafeLoader), key, path)
        start, end = node.start_mark.index, node.end_mark.index
        old, new = text[start:end], value if isinstance(value, str) else json.dumps(value)
        if yaml.safe_load(old) != value:
            changes.append(f"{key}: {old} -> {new}")
            text = text[:start] + new + _aligned(text[end:], len(new) - len(old))
    if changes:
        artefacts.write_bytes(path, text.encode())
    return changes


def _values(name: str) -> dict[str, Any]:
    """Dotted key -> value under a profile, for every key that any profile changes."""
    known = profiles()
    if name not in {"default", *known}:
        raise InputError(f"profile: expected one of default, {', '.join(known)}, found {name}")
    values = {key: pair[0] for profile in known.values() for key, pair in profile.items()}
    return values if name == "default" else values | {key: pair[1] for key, pair in known[name].items()}


def _node(node: Any, key: str, path: Path) -> Any:
    """Find the YAML node of a dotted key's value."""
    for name in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for found, value in pairs if found.value == name), None)
    if node is None:
        raise InputError(f"{path}: {key}: expected this key, found none")
    return node


def _aligned(rest: str, longer: int) -> str:
    """Text after a value that became longer by so many characters, with the comment behind it left in its column."""
    comment = rest.lstrip(" ")
    if not comment.startswith("#"):
        return rest
    return " " * max(2, len(rest) - len(comment) - longer) + comment
