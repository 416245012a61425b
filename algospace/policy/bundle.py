"""The bundle: a directory that carries a policy from export to use, verified before it is read.

Tensors as safetensors, the networks as ONNX graphs beside them, golden decisions, a model card, and everything else in
``manifest.json``, which holds the sha256 of every other file and its own digest. Nothing in it depends on when, where
or by whom it was made. A missing, altered or extra file is refused by its name: there is no default to fall back on.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

from algospace import agents, artefacts, market, nets
from algospace.calibration import Calibration
from algospace.consensus import Gate2Params
from algospace.data.contracts import Contract
from algospace.data.params import DataParams
from algospace.errors import BundleError, InputError
from algospace.features.fitted import Fitted
from algospace.features.params import FeatureParams
from algospace.features.table import SIDE
from algospace.features.windows import REGIME, STRUCTURE, TACTICAL
from algospace.indicators.params import IndicatorParams
from algospace.mrms import communication
from algospace.mrms import model as risk_model
from algospace.mrms.model import require_features
from algospace.mrms.state import feature_names
from algospace.params import MOST_THREADS
from algospace.policy import graphs, model_card
from algospace.policy.decide import Policy
from algospace.policy.golden import GOLDEN
from algospace.policy.graphs import CONSENSUS, GRAPHS
from algospace.rde import model as regime_model
from algospace.rde.space import Space
from algospace.settings import Settings
from algospace.synergy import Gate1Params

# What building a policy out of forged content may raise (pydantic's and our own errors are ValueErrors).
_UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
SCHEMA = 4  # of manifest and tensors; a number older code wrote is refused, and so is one of newer code
MANIFEST, CARD = "manifest.json", "MODEL_CARD.md"
TENSORS = (
    "fitted.safetensors", "rde.safetensors", "space.safetensors", "mrms.safetensors", "memory.safetensors",
    "marl.safetensors",
)  # fmt: skip
ALWAYS = {*TENSORS, CARD}  # with these a bundle decides
KNOWN = ALWAYS | {*GRAPHS, *GOLDEN}
_KEYS = {"files", "settings", "seed", "threads", "calibration", "described", "provenance", "digest"}
_MODELS: dict[str, Any] = {
    "contract": Contract,
    "data": DataParams,
    "indicators": IndicatorParams,
    "gate1": Gate1Params,
    "features": FeatureParams,
    "market": market.MarketParams,
    "gate2": Gate2Params,
}


def write(
    directory: Path, policy: Policy, provenance: dict[str, Any], beside: Mapping[str, bytes] | None = None
) -> str:
    """Write a policy and return the bundle's id, the sha256 of its manifest.

    ``provenance`` is JSON that a reader of the bundle needs to trust it: the data's source, the hashes of the inputs
    and of the lock, the split dates, validation metrics. ``beside`` are contents of `GRAPHS` and `GOLDEN`
    (`algospace.policy.graphs.export`, `algospace.policy.golden.contents`).
    """
    models: dict[str, Any] = {
        "rde": policy.rde, "mrms": policy.mrms, "memory": policy.memory, "marl": policy.team,
    }  # fmt: skip
    contents = {
        "fitted.safetensors": artefacts.tensor_bytes(policy.fitted.tensors(), {}),
        "space.safetensors": artefacts.tensor_bytes(policy.space._asdict(), {"archetypes": policy.archetypes}),
        **(beside or {}),
    }
    for name, model in models.items():
        contents[f"{name}.safetensors"] = artefacts.tensor_bytes(nets.arrays(model), model.config)
    settings = policy.settings._asdict()
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "settings": {name: settings[name].model_dump(mode="json") for name in _MODELS},
        "seed": policy.settings.seed,
        "threads": policy.settings.threads,
        "calibration": policy.calibration._asdict(),
        "described": _described(policy, models),
        "provenance": provenance,
    }
    contents[CARD] = model_card.render(manifest).encode()
    manifest["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest["digest"] = _digest(manifest)
    for name in KNOWN - contents.keys():
        (directory / name).unlink(missing_ok=True)  # of a bundle that was here before
    for name, content in contents.items():
        artefacts.write_bytes(directory / name, content)
    artefacts.write_json(directory / MANIFEST, manifest)
    return artefacts.sha256(directory / MANIFEST)


def _described(policy: Policy, models: dict[str, Any]) -> dict[str, Any]:
    """What the tensors mean, for a reader: names of the features, their scales, the references, sizes of networks."""
    reference, regime, tactical = policy.fitted

    def numbers(array: np.ndarray) -> Any:
        return np.asarray(array, np.float64).tolist()

    return {
        "features": {
            "structure": list(STRUCTURE),
            "tactical": list(TACTICAL),
            "side": list(SIDE),
            "regime": list(REGIME[policy.settings.indicators.mmd.kind]),
            "risk": list(policy.mrms.config["features"]),
        },
        "scales": {
            "regime": {"center": numbers(regime.center), "scale": numbers(regime.scale)},
            "side": {"center": numbers(tactical.center), "scale": numbers(tactical.scale)},
        },
        "references": {
            "center": numbers(reference.center),
            "scale": numbers(reference.scale),
            "median_distance": float(reference.median_distance),
            "kernel_scales": numbers(reference.kernel_scales),
            "points": list(np.shape(reference.points)),
        },
        "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()},
        "archetypes": list(policy.archetypes),
    }


def verify(directory: Path) -> dict[str, Any]:
    """Check every file of a bundle against the manifest and return the manifest.

    Raises
    ------
    BundleError
        Naming the file that is missing, altered, extra, or of another schema.
    """
    if not directory.is_dir():
        raise BundleError(f"{directory}: expected a bundle directory, found none")
    path = directory / MANIFEST
    if path.is_symlink():
        raise BundleError(f"{path}: expected a file, found another thing")
    try:
        manifest = artefacts.read_json(path)
    except InputError as error:
        raise BundleError(str(error)) from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if type(schema) is int and schema != SCHEMA:
        age = "an older" if schema < SCHEMA else "a newer"
        raise BundleError(
            f"{path}: expected schema {SCHEMA}, found {schema}, of {age} algospace: use that version, or export anew"
        )
    if schema != SCHEMA or not set(manifest) >= _KEYS:
        raise BundleError(f"{path}: expected a manifest of schema {SCHEMA}, found another file")
    stated = manifest.pop("digest", None)
    # The digest is of the parsed content; the bytes must be the ones that `write` gives for it.
    whole = {**manifest, "digest": stated}
    try:
        untouched = stated == _digest(manifest) and path.read_bytes() == artefacts.json_bytes(whole)
    except ValueError:
        untouched = False
    if not untouched:
        raise BundleError(f"{path}: expected the manifest as it was written, found an altered one")
    stated_files = manifest["files"]
    if not isinstance(stated_files, dict) or not ALWAYS <= set(stated_files) <= KNOWN:
        raise BundleError(f"{path}: files: expected {', '.join(sorted(ALWAYS))}, found another list")
    found = sorted(entry.name for entry in directory.iterdir())
    for name in sorted({MANIFEST, *stated_files} ^ set(found)):
        raise BundleError(f"{directory / name}: expected {'no such file' if name in found else 'this file'}")
    for name in stated_files:
        if (directory / name).is_symlink() or not (directory / name).is_file():
            raise BundleError(f"{directory / name}: expected a file, found another thing")
    for name, digest in stated_files.items():
        if artefacts.sha256(directory / name) != digest:
            raise BundleError(f"{directory / name}: expected the file of the manifest's sha256, found an altered one")
    return whole


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(artefacts.json_bytes(manifest)).hexdigest()


def load(directory: Path | str, engine: Literal["pytorch", "onnx"] = "pytorch") -> tuple[Policy, dict[str, Any]]:
    """Verify a bundle and return its policy and its manifest.

    With the engine ``onnx`` ONNX Runtime runs the 50 passes of the consensus; numbers differ by less than 1e-5.

    Raises
    ------
    BundleError
        For a bundle that `verify` refuses or whose content does not fit together.
    """
    directory = Path(directory)
    manifest = verify(directory)
    with unfit(str(directory)):
        settings = {
            name: TypeAdapter(model).validate_json(artefacts.json_bytes(manifest["settings"][name]), strict=True)
            for name, model in _MODELS.items()
        }
        tensors: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {
            name: _read(directory / name) for name in TENSORS
        }
        policy = Policy(
            Settings(
                **settings,
                seed=_count(manifest, "seed", 0, 2**32 - 1),
                threads=_count(manifest, "threads", 1, MOST_THREADS),
            ),
            Fitted.from_tensors(tensors["fitted.safetensors"][0]),
            regime_model.load(*tensors["rde.safetensors"]),
            Space(**tensors["space.safetensors"][0]),
            _names(tensors["space.safetensors"][1]),
            risk_model.load(*tensors["mrms.safetensors"]),
            communication.load(*tensors["memory.safetensors"]),
            agents.load(*tensors["marl.safetensors"]),
            Calibration(float(manifest["calibration"]["slope"]), float(manifest["calibration"]["intercept"])),
        )
        _check_widths(policy)
        if engine == "onnx":
            if CONSENSUS not in manifest["files"]:
                raise BundleError(f"expected {CONSENSUS}, found none")
            graph = (directory / CONSENSUS).read_bytes()
            policy = policy._replace(passes=graphs.runtime(graph, policy, policy.settings.threads))
    return policy, manifest


def provenance(manifest: dict[str, Any], *keys: str) -> Any:
    """An entry of the manifest's provenance; `BundleError` where the bundle has none."""
    found = manifest["provenance"]
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            entry = ".".join(("provenance", *keys))
            raise BundleError(f"{MANIFEST}: {entry}: expected this entry, found none; export the bundle anew")
        found = found[key]
    return found


@contextmanager
def unfit(place: str) -> Iterator[None]:
    """Raise `BundleError`, naming the ``place``, for whatever is read there and does not fit together."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"{place}: {error}") from None
    except _UNFIT as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{place}: expected content that fits together, found {found[:200]}") from None


def source_kind(manifest: dict[str, Any]) -> str:
    """Which bars it was trained on: ``synthetic``, ``csv``, ``parquet``; ``unknown`` where it does not say."""
    try:
        return str(provenance(manifest, "data", "source", "kind"))
    except BundleError:
        return "unknown"


def _check_widths(policy: Policy) -> None:
    """Refuse parts of different policies: what one part writes must have the shape that the next one reads."""
    reference, regime, tactical = policy.fitted
    shapes = {
        "regime scale": ({(policy.rde.config["n_features"],)}, regime),
        "tactical scale": ({(len(SIDE),)}, tactical),
    }
    for name, (expected, scale) in shapes.items():
        if {np.shape(scale.center), np.shape(scale.scale)} != expected:
            raise BundleError(f"{name}: expected the shape {expected}, found {np.shape(scale.center)}")
    width = (policy.settings.indicators.mmd.references, 4)
    if np.shape(reference.points)[::2] != width or {np.shape(reference.center), np.shape(reference.scale)} != {(4,)}:
        raise BundleError(f"MMD references: expected {width[0]} sets of rows of 4, found {np.shape(reference.points)}")
    if np.shape(reference.kernel_scales) != (5,) or np.shape(reference.median_distance) != ():
        raise BundleError("MMD references: expected 5 kernel scales and one distance, found others")
    require_features(tuple(policy.mrms.config["features"]), feature_names(policy.rde.config["latent_dim"]))
    latent = policy.rde.config["latent_dim"]
    kinds = len(policy.archetypes)
    if [np.shape(part) for part in policy.space] != [(latent,), (latent, latent), (kinds, latent), (kinds,), (2,)]:
        raise BundleError(f"space: expected {kinds} archetypes of {latent}, found {np.shape(policy.space.archetypes)}")
    if policy.rde.config["window"] != policy.settings.features.window_regime:
        raise BundleError("features.window_regime: expected the window of the regime network, found another")


def _names(header: dict[str, Any]) -> list[str]:
    found = header.get("archetypes")
    named = isinstance(found, list) and all(isinstance(name, str) for name in found)
    if set(header) != {"archetypes"} or not found or not named:
        raise BundleError(f"space: expected the names of its archetypes, found {header!r:.100}")
    names: list[str] = found
    return names


def _count(manifest: dict[str, Any], key: str, least: int, most: int) -> int:
    value: int = manifest[key]
    if type(value) is not int or not least <= value <= most:
        raise BundleError(f"{MANIFEST}: {key}: expected an integer from {least} to {most}, found {value!r:.40}")
    return value


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and header of one file; weights that are not finite are refused."""
    tensors, header = artefacts.read_tensors(path)
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise BundleError(f"{path}: expected finite numbers in {name}, found NaN or inf")
    return tensors, header
