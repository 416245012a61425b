"""The shape of the house, as a test: imports run one way, and dvc.yaml says exactly what each stage touches."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
STAGES = ("prepare", "rde", "mrms", "marl", "export")
# A module may import those above it only. `pipeline`, `commands` and `cli` stand outside: stages and commands
# import the pipeline, nothing imports a command but the cli, which does so by name.
ORDER = (
    "errors", "params", "artefacts", "distributed", "drift",
    "data.contracts", "data.params", "data.sessions", "data.rolls", "data.bars", "data.continuous", "data.stamps",
    "data.quality", "data.columns", "data.csv_file", "data.parquet_file", "data.reader", "data.checks",
    "data.agreement", "data.auto", "data.sources", "data.splits", "data.download",
    "indicators.arrays", "indicators.technical", "indicators.mlmi", "indicators.nwrqk", "indicators.fvg",
    "indicators.lvn", "indicators.mmd", "indicators.signature", "indicators.activity", "indicators.params",
    "synergy", "signals", "synthetic", "planted",
    "features.params", "features.prepared", "features.table", "features.census", "features.fitted", "features.windows",
    "features.health", "features.outputs",
    "market", "performance", "evidence", "track_record", "trials", "calibration", "forecast", "nets", "gradient",
    "training", "ppo", "teams", "plotting",
    "rde.model", "rde.measures", "rde.persistence", "rde.space", "rde.communication", "rde.params", "rde.examples",
    "rde.fit", "rde.figures", "rde.walk_forward", "rde.engine", "rde.pictures",
    "mrms.params", "mrms.track", "mrms.state", "mrms.stops", "mrms.outcomes", "mrms.model", "mrms.objective",
    "mrms.fit", "mrms.proposal", "mrms.trades", "mrms.ppo", "mrms.method", "mrms.walk_forward",
    "mrms.figures", "mrms.communication", "mrms.engine", "mrms.pictures",
    "env", "parallel_env", "agents", "mappo", "consensus", "settings",
    "marl.params", "marl.exams", "marl.pretraining", "marl.passage", "marl.engine", "marl.figures", "marl.sweep",
    "marl.pictures",
    "policy.params", "policy.account", "policy.records", "policy.simulation", "policy.decide", "policy.stream",
    "policy.baselines", "policy.graphs", "policy.golden", "policy.model_card", "policy.bundle", "svg", "pictures",
    "wording", "report", "policy.breakdown", "policy.evaluation", "policy.monitor", "policy.outputs", "policy.page",
)  # fmt: skip
PIPELINE = (
    "config",
    "profiles",
    "session",
    "stage",
    "curves",
    "training_state",
    "provenance",
    "settings",
    "owners",
    "status",
    "experiments",
    "space",
    "readiness",
    "sweep",
)
COMMANDS = tuple(
    f"commands.{name}"
    for name in ("reading", "bars", "decisions", "judging", "project", "readiness", "record", "search")
)


def source(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imports(path: Path) -> set[str]:
    """Modules of this repository that a file imports, lazily or not, with the packages around them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in names if name.split(".")[0] in ("algospace", "stages")}
    parents = {".".join(name.split(".")[:i]) for name in ours for i in range(1, len(name.split(".")) + 1)}
    return {name for name in parents if source(name)}


def closure(path: Path) -> set[Path]:
    found, queue = {path}, [path]
    while queue:
        for module in imports(queue.pop()):
            target = source(module)
            if target and target not in found:
                found.add(target)
                queue.append(target)
    return found


def declared(stage: str) -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]


def paths(entries: list) -> set[str]:
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def constants(path: Path) -> dict[str, str]:
    """File constants of a stage script: NAME = Path("...")."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "Path":
            found[ast.unparse(node.targets[0])] = ast.literal_eval(node.value.args[0])
    return found


def test_every_module_has_its_place():
    modules = {
        ".".join(path.relative_to(ROOT / "algospace").with_suffix("").parts)
        for path in (ROOT / "algospace").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert modules == {*ORDER, *(f"pipeline.{name}" for name in PIPELINE), *COMMANDS, "cli"}


@pytest.mark.parametrize("module", [*ORDER, *(f"pipeline.{name}" for name in PIPELINE)])
def test_imports_run_one_way(module):
    above = set(ORDER[: ORDER.index(module)]) if module in ORDER else {"errors", "params", "artefacts", "distributed"}
    if module in {
        "pipeline.settings",
        "pipeline.experiments",
        "pipeline.sweep",
        "pipeline.readiness",
        "pipeline.owners",
    }:
        above |= set(ORDER)
    if module.startswith("pipeline."):
        above |= {f"pipeline.{name}" for name in PIPELINE[: PIPELINE.index(module.split(".")[1])]}
    packages = {"", "data", "indicators", "features", "rde", "mrms", "marl", "policy", "pipeline"}
    used = {name.removeprefix("algospace").removeprefix(".") for name in imports(source(f"algospace.{module}"))}
    assert used - packages <= above, f"{module} imports {sorted(used - packages - above)}"


@pytest.mark.parametrize("stage", STAGES)
def test_stages_never_import_each_other(stage):
    others = {f"stages.{name}" for name in STAGES} & imports(ROOT / "stages" / f"{stage}.py")
    assert not others


def test_packages_are_empty():
    """An __init__ that re-exports would make every stage depend on everything."""
    for path in ROOT.glob("algospace/**/__init__.py"):
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.Expr | ast.Assign) for node in body), path


def test_dvc_declares_the_five_stages_in_order():
    assert tuple(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_the_import_closure(stage):
    code = {
        path.relative_to(ROOT).as_posix()
        for path in closure(ROOT / "stages" / f"{stage}.py") | {ROOT / "stages/__init__.py"}
    }
    assert {dep for dep in declared(stage)["deps"] if dep.endswith(".py")} == code


@pytest.mark.parametrize("stage", STAGES)
def test_file_deps_and_outputs_are_what_the_stage_touches(stage):
    script = ROOT / "stages" / f"{stage}.py"
    entry = declared(stage)
    outputs = set().union(*(paths(entry.get(kind, [])) for kind in ("outs", "metrics", "plots")))
    inputs = {dep for dep in entry["deps"] if not dep.endswith(".py")} - {"requirements.lock"}
    templates = {
        (module.parent / name).relative_to(ROOT).as_posix()
        for module in closure(script)
        for name in re.findall(r'joinpath\("([\w.]+)"\)', module.read_text())
    }
    touched = set(constants(script).values()) - {"requirements.lock"} | templates
    assert inputs | outputs == touched
    written = written_constants(script)
    assert {constants(script)[name] for name in written} == outputs


def written_constants(script: Path) -> set[str]:
    """Names of the file constants that a script hands to something that writes."""
    found = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Call) and "write" in ast.unparse(node.func):
            found |= {name.id for name in node.args if isinstance(name, ast.Name) and name.id.isupper()}
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_the_lock_is_a_dependency(stage):
    assert "requirements.lock" in declared(stage)["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_what_the_stage_reads(stage):
    script = (ROOT / "stages" / f"{stage}.py").read_text()
    pattern = r'load_params\("(\w+)"'
    read = set(re.findall(pattern, script))
    if "load_settings(" in script:
        read |= set(re.findall(pattern, (ROOT / "algospace/pipeline/settings.py").read_text()))
    assert sorted(declared(stage)["params"]) == sorted(read)


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_and_plots_stay_in_git(stage):
    entry = declared(stage)
    for kind in ("metrics", "plots"):
        for item in entry.get(kind, []):
            in_git = isinstance(item, dict) and next(iter(item.values())) == {"cache": False}
            assert in_git or (isinstance(item, str) and item.startswith("reports/")), "pictures are for the cache"
    assert "persist:" not in yaml.safe_dump(entry)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_scripts_are_short(stage):
    assert len((ROOT / "stages" / f"{stage}.py").read_text().splitlines()) <= 110


def names(*nodes: ast.AST) -> set[str]:
    return {name.id for node in nodes for name in ast.walk(node) if isinstance(name, ast.Name)}


def test_a_compiled_kernel_is_made_of_its_own_file():
    """Numba compiles anew when that file changes, and asks no other: what came from one would be of another day."""
    found = 0
    for path in ROOT.glob("algospace/**/*.py"):
        tree = ast.parse(path.read_text())
        from_us = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
            if (node.module or "" if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0] == "algospace"
        }
        assigned = {
            name: node.value for node in tree.body if isinstance(node, ast.Assign) for name in names(*node.targets)
        }
        for kernel in ast.walk(tree):
            if isinstance(kernel, ast.FunctionDef) and "njit" in " ".join(map(ast.unparse, kernel.decorator_list)):
                found += 1
                used = names(*kernel.body)
                used |= names(*(assigned[name] for name in used & set(assigned)))
                assert not used & from_us, f"{path.name}: {kernel.name} uses {sorted(used & from_us)} of another file"
    assert found > 30


def test_nothing_is_pickled_or_half_finished():
    words = re.compile(
        r"\bpickle\b(?!d)|joblib|torch\.(load|save)\(|yaml\.(load|full_load|unsafe_load)\(|\beval\(\"|\bexec\(|"
        r"TODO|FIXME|placeholder|not implemented", re.IGNORECASE,
    )  # fmt: skip
    for path in [*ROOT.glob("algospace/**/*.py"), *ROOT.glob("stages/*.py")]:
        hits = words.findall(path.read_text())
        assert not hits, f"{path}: {hits}"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_stand_on_top(command):
    used = {name.removeprefix("algospace.") for name in imports(source(f"algospace.{command}"))}
    assert not used & ({"cli", *COMMANDS} - {"commands.reading"})


def test_every_command_line_names_a_command_that_is_there():
    named = re.findall(r'run="(\w+)\.(\w+)"', (ROOT / "algospace/cli.py").read_text())
    assert len(named) > 10
    for module, function in named:
        assert callable(getattr(importlib.import_module(f"algospace.commands.{module}"), function))
