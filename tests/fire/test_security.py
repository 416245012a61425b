"""What the code never does, proved by walking it; and paths of the params, which stay below data/raw."""

import ast
from pathlib import Path

import pytest
import yaml

from algospace.data import sources
from algospace.data.params import DataParams
from algospace.errors import InputError

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("algospace/**/*.py"), *ROOT.glob("stages/*.py")])
# Modules that run what they read, unpack what they are given, or talk to a network.
FORBIDDEN_MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "codeop", "pty",
    "zipfile", "tarfile", "socket", "ssl", "http", "urllib", "ftplib", "smtplib", "xmlrpc", "requests", "httpx",
    "aiohttp",
}  # fmt: skip
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "breakpoint", "input", "execfile",
    "os.system", "os.popen", "os.startfile", "subprocess.getoutput", "subprocess.getstatusoutput",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load",
    "torch.load", "torch.save", "torch.hub.load", "pd.read_pickle", "pd.eval", "pd.read_hdf", "pd.read_html",
    "np.load", "np.save", "np.savez", "np.frompyfunc", "shutil.unpack_archive", "tempfile.mktemp",
}  # fmt: skip
FORBIDDEN_METHODS = {"to_pickle", "read_pickle", "unpack_archive", "extractall", "to_hdf"}
COMMANDS = {"git", "dvc"}  # the only ones that the code starts, by a list of arguments


def sins(text: str) -> list[str]:
    """What a source does that none may do."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            found += [name for name in names[:1] if name.split(".")[0] in FORBIDDEN_MODULES]
            found += [name for name in names if name in FORBIDDEN_CALLS or name.startswith(("os.exec", "os.spawn"))]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name in FORBIDDEN_CALLS or method in FORBIDDEN_METHODS or name.startswith(("os.exec", "os.spawn")):
                found.append(name)
            if any(word.arg in ("shell", "allow_pickle", "weights_only") for word in node.keywords):
                found.append(f"{name} with {', '.join(str(word.arg) for word in node.keywords)}")
            if name.startswith("subprocess.") and not (node.args and command_of(node.args[0]) in COMMANDS):
                found.append(f"{name} of another command")
            if method == "compose" and "SafeLoader" not in ast.unparse(node):
                found.append(f"{name} without the safe loader")
    return found


def command_of(arguments):
    """The command that a literal list of arguments names, or the module that this Python runs; None for others."""
    words = [ast.unparse(word) for word in arguments.elts] if isinstance(arguments, ast.List) else []
    if words[:2] == ["sys.executable", "'-m'"]:
        words = words[2:]
    return words[0].strip("'") if words and words[0].startswith("'") else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_runs_what_it_reads(path):
    assert sins(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "eval(x)", "exec(x)", "__import__(x)", "import pickle", "from pickle import loads", "import os; os.system(x)",
        "import subprocess; subprocess.run(x)", "import subprocess; subprocess.run('a', shell=True)",
        "import subprocess; subprocess.run(['curl', x])", "import yaml; yaml.load(x)", "torch.load(x)",
        "yaml.compose(x)", "yaml.compose(x, Loader=yaml.Loader)", "np.load(x, allow_pickle=True)", "frame.to_pickle(x)",
        "from os import system", "from os import execvp", "subprocess.run([sys.executable, '-m', 'pip'])",
        "import tarfile", "archive.extractall()", "import urllib.request", "os.execvp(x, y)", "lambda: eval(x)",
    ],
)  # fmt: skip
def test_the_walk_sees_it(text):
    assert sins(text)


def test_dvc_runs_no_text_of_the_params():
    """A command with a `${...}` would hand a parameter to a shell."""
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values():
        assert stage["cmd"].startswith("python -m stages.")
        assert "$" not in yaml.safe_dump(stage)


@pytest.fixture
def reading():
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]
    return lambda *files, **more: DataParams(**{**content, "source": "csv", "files": list(files), **more})


@pytest.fixture
def raw(tmp_path):
    """A data/raw with links of all kinds, and a secret beside it."""
    folder = tmp_path / "project/data/raw"
    folder.mkdir(parents=True)
    (tmp_path / "secret.csv").write_text("root:x:0:0\n")
    cached = tmp_path / "cache/files/md5/ab/cdef"
    cached.parent.mkdir(parents=True)
    for path in (folder / "own.csv", cached):
        path.write_text("datetime,open,high,low,close,volume\n")
    (folder / "out.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "relative.csv").symlink_to("../../../secret.csv")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "chain.csv").symlink_to("out.csv")
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "inside.csv").symlink_to("own.csv")
    (folder / "dvc.csv").symlink_to(cached)
    return folder


@pytest.mark.parametrize(
    "name",
    ["../raw/../../../secret.csv", "out.csv", "relative.csv", "chain.csv", "folder/secret.csv", "/etc/passwd", ".."],
)
@pytest.mark.parametrize("key", ["files", "m30_files"])
def test_paths_out_of_data_raw_are_refused(reading, raw, name, key):
    params = reading(name) if key == "files" else reading("own.csv", m30_files=[name])
    with pytest.raises(InputError, match=rf"^data\.{key}: expected a path below .*raw, found ") as caught:
        sources.confine(params, raw)
    assert "root:x" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["own.csv", "inside.csv", "dvc.csv", "loop.csv", "none.csv"])
def test_paths_below_it_and_dvc_s_links_are_not(reading, raw, name):
    sources.confine(reading(name), raw)


def test_a_data_raw_that_is_itself_a_link_is_the_user_s_choice(reading, raw, tmp_path):
    (tmp_path / "elsewhere").symlink_to(raw)
    sources.confine(reading("own.csv"), tmp_path / "elsewhere")


def test_a_link_that_leads_to_itself_is_no_bar_file(reading, raw):
    with pytest.raises(InputError, match=r"loop\.csv: expected a bar file \(data\.files\), found none"):
        sources.find(reading("loop.csv"), raw)


def test_prepare_confines_what_it_reads():
    text = (ROOT / "stages/prepare.py").read_text(encoding="utf-8")
    assert text.index("sources.confine(data, RAW)") < text.index("sources.load(data, contract, RAW)")
