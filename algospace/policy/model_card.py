"""The model card: what a bundle is, in plain words, said by its manifest alone (Mitchell et al. 2019)."""

from typing import Any

LIMITS = (
    "It decides on the completed synergies of Gate 1 alone; between them it does nothing.",
    "It knows one contract and one market, as they were in training. Another contract, or a market that has changed, "
    "is outside what was measured.",
    "Fills are simulated: next open, one slippage worse, the stop first inside a bar. A real order may fare worse.",
    "Validation chose the team and calibrated its confidence; only figures of its second half are quoted here.",
    "It is research, and no advice to trade.",
)


def render(manifest: dict[str, Any]) -> str:
    """Markdown of a manifest without its file list; the same bytes for the same manifest."""
    provenance, settings = manifest["provenance"], manifest["settings"]
    data, contract = provenance.get("data", {}), settings["contract"]
    source = data.get("source", {})
    parts = [f"# AlgoSpace policy for {contract['symbol']}"]
    if source.get("kind") == "synthetic":
        parts.append(
            "**SYNTHETIC DATA. This policy was trained and judged on an artificial market. Nothing here says anything "
            "about a real one.**"
        )
    parts += [
        "## What it is",
        "Three agents (or one of them) vote on each event that Gate 1, a set of fixed rules, lets through; 50 passes "
        "with dropout say how sure they are. A risk ensemble proposes size, stop and target; Gate 2 and the account's "
        "limits have the last word. Every decision and every refusal is a record with its reasons.",
        _table(("network", "parameters"), [(n, f"{p:,}") for n, p in manifest["described"]["parameters"].items()]),
        "## What it was trained on",
        _table(("", ""), [*_source(source), *_splits(data.get("splits", {})), *_quality(provenance)]),
        "## Validation",
        *_validation(provenance.get("validation", {}).get("marl", {})),
        "## Limits",
        "\n".join(f"- {limit}" for limit in LIMITS),
        "## How it is used",
        _table(
            ("", ""),
            [
                ("bars", "5 minutes, traded only; the stream fills holes inside sessions itself"),
                ("sessions", f"calendar {contract['calendar']}"),
                ("contract", f"tick {contract['tick']:g}, {contract['point_value']:g} USD a point, commission "
                 f"{contract['commission']:g} USD a side, slippage {contract['slippage_ticks']:g} ticks"),
                ("account", f"{settings['market']['account']['equity']:,.0f} USD to begin with"),
                ("largest trade", f"{settings['market']['limits']['max_units']} units, "
                 f"{settings['market']['limits']['max_trade_risk']:.1%} of the equity at the stop"),
                ("seed, threads", f"{manifest['seed']}, {manifest['threads']}"),
            ],
        ),
        "`algospace verify` checks every byte and makes the golden decisions again; `algospace decide` decides on the "
        "bars of a file.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _source(source: dict[str, Any]) -> list[tuple[str, str]]:
    files = [f"{file['path']} (sha256 {file['sha256']})" for file in source.get("files", [])]
    kind = source.get("kind", "not stated")
    return [
        ("source", kind + (f", market `{source['market']}`" if "market" in source else "")),
        ("bars", f"{source['rows']:,}" if "rows" in source else "not stated"),
        *(("file", file) for file in files),
    ]


def _splits(splits: dict[str, str]) -> list[tuple[str, str]]:
    said = {
        "train": "train",
        "select": "validation, selecting half",
        "report": "validation, quoted half",
        "test": "test",
    }
    return [
        (text, f"{splits[f'{name}_first']} to {splits[f'{name}_last']}")
        for name, text in said.items()
        if f"{name}_first" in splits
    ]


def _quality(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    score = provenance.get("quality")
    return [] if score is None else [("quality of the bars", f"{score:.1f} of 100")]


def _validation(validation: dict[str, Any]) -> list[str]:
    """The quoted half of validation in figures, and what they are evidence of."""
    found = validation.get("report", {}).get("trained")
    if not found:
        return ["No validation figures came with this bundle."]
    half = validation["report"]
    mean, low, high = (found.get(name) for name in ("mean_r", "mean_r_low", "mean_r_high"))
    rows = [
        ("candidates", f"{half['candidates']:,}"),
        ("completed synergies", f"{half['synergies']:,}"),
        ("net R a candidate", _number(mean) + ("" if low is None else f" (95 % interval {low:+.3f} to {high:+.3f})")),
        ("net R a taken candidate", _number(found.get("taken_mean_r"))),
        ("net R a completed synergy", _number(found.get("synergy_mean_r"))),
        *_traded(half.get("traded", {})),
        ("always with the signal", _number(half.get("always_with_mean_r"))),
        ("random votes", _number(half.get("random_mean_r"))),
        ("calibration error", _number(half.get("ece"))),
        ("calibration error of a perfect model", _number(half.get("ece_floor"))),
    ]
    return [_verdict(mean, low, high), _table(("", ""), rows)]


def _traded(rules: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """What one account would have traded in time order, by the consensus and by the rule that is deployed."""
    words = {"consensus": "trades of the consensus, one at a time", "deployed": "trades through Gate 2"}
    return [
        (text, f"{rules[name]['trades']:,}, in all {_number(rules[name]['total_r'])} R")
        for name, text in words.items()
        if name in rules
    ]


def _verdict(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None or low is None or high is None:
        return "**Too few events to say anything.**"
    if low > 0:
        return "**On validation the interval of the mean lies above zero: evidence of an edge there.**"
    if high < 0:
        return "**On validation the interval of the mean lies below zero: evidence of a loss there.**"
    return "**No evidence of an edge: on validation the interval of the mean includes zero.**"


def _number(value: float | None) -> str:
    return "not given" if value is None else f"{value:+.3f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
