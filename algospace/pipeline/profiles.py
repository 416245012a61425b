"""Profiles: named sets of values in ``params.yaml``, and the way to switch between them."""

import json
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from algospace import artefacts
from algospace.errors import InputError
from algospace.params import Params
from algospace.pipeline.config import PARAMS, load_params, lookup, read_yaml

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
    content = read_yaml(path)
    text = path.read_text(encoding="utf-8")
    changes = []
    for key, value in values.items():
        found, node = _pair(yaml.compose(text, Loader=yaml.SafeLoader), key, path)
        if lookup(content, key) == value:
            continue
        new = value if isinstance(value, str) else json.dumps(value)
        if isinstance(node, yaml.CollectionNode) and not node.flow_style:
            old, text = json.dumps(lookup(content, key)), _on_one_line(text, found, node, new)
        else:
            start, end = node.start_mark.index, node.end_mark.index
            old = text[start:end]
            text = text[:start] + new + _aligned(text[end:], len(new) - len(old))
        changes.append(f"{key}: {old} -> {new}")
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


def _pair(root: yaml.Node | None, key: str, path: Path) -> tuple[yaml.Node, yaml.Node]:
    """Find the YAML nodes of a dotted key's last name and of its value."""
    node = root
    pair: tuple[yaml.Node, yaml.Node] | None = None
    for name in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        pair = next((pair for pair in pairs if pair[0].value == name), None)
        node = pair[1] if pair else None
    if pair is None:
        raise InputError(f"{path}: {key}: expected this key, found none")
    return pair


def _on_one_line(text: str, key: yaml.Node, value: yaml.CollectionNode, new: str) -> str:
    """Text with a value that stood on lines of its own, behind dashes say, as ``new`` behind its key."""
    head = text.index(":", key.end_mark.index) + 1
    last: yaml.Node = value
    while isinstance(last, yaml.CollectionNode) and not last.flow_style:  # whose end mark is where the next key begins
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    between = text[head : value.start_mark.index].rstrip()
    return f"{text[:head]} {new}{between}{text[last.end_mark.index :]}"


def _aligned(rest: str, longer: int) -> str:
    """Text after a value that became longer by so many characters, with the comment behind it left in its column."""
    comment = rest.lstrip(" ")
    if not comment.startswith("#"):
        return rest
    return " " * max(2, len(rest) - len(comment) - longer) + comment
