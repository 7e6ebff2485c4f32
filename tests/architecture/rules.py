"""The rules of the house, each a function from sources to a list of sentences (empty where the rule is kept).

Sources are `{path relative to the clone: text}`, so that the tests can also pass in text that breaks a rule.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FLOORS: dict[str, int] = {
    **dict.fromkeys(("domains", "files", "metrics", "networks"), 0),
    "core": 1,
    **dict.fromkeys(
        ("discretise", "priors", "solvers", "samplers", "solving", "training", "catalogue", "checks", "show"), 2
    ),
    **dict.fromkeys(("forward", "learned"), 3),
    **dict.fromkeys(("cli", "__main__", "__init__"), 4),
}

# Everyone may name the one exception class that refuses bad input.
EVERYWHERE = frozenset({"sciml.domains.errors"})

# Folders on one floor do not import each other; exceptions: "top" of the file, or "lazy" inside a function, and why.
SIDEWAYS: dict[tuple[str, str], tuple[str, str]] = {
    ("core", "catalogue"): ("lazy", "a pickled problem is built again from its recipe"),
    ("core", "show"): ("lazy", "Solution.plot"),
    ("training", "catalogue"): ("lazy", "generate draws members of a problem by name"),
    ("training", "solving"): ("lazy", "generate solves them"),
    ("checks", "catalogue"): ("lazy", "checks.order loads the problem on several grids"),
    ("checks", "solving"): ("lazy", "checks.order and checks.consistent solve"),
    ("show", "training"): ("lazy", "curves and samples of a fit"),
    ("catalogue", "training"): ("lazy", "pretrained weights are a fit"),
    ("catalogue", "priors"): ("lazy", "or a prior"),
    ("solving", "catalogue"): ("lazy", "refine loads the same problem on another grid"),
    ("solvers", "priors"): ("lazy", "example()"),
    ("priors", "solvers"): ("lazy", "an unfolded prior names the solver that its weights belong to"),
    ("solvers", "discretise"): ("lazy", "example() and default operators"),
    ("solvers", "samplers"): ("lazy", "example() of Calibrated"),
    ("solvers", "solving"): ("lazy", "example() of Calibrated"),
    ("samplers", "priors"): ("lazy", "example()"),
}

HEAVY = frozenset({"xarray", "h5py", "h5netcdf", "matplotlib", "scipy", "pandas", "rich", "cyclopts", "safetensors"})
FILE_LIBRARIES = frozenset({"xarray", "h5py", "h5netcdf", "matplotlib"})
FILE_LIBRARIES_ALLOWED = (
    "sciml/files/",
    "sciml/training/",
    "sciml/show/",
    "sciml/core/solution.py",
    "sciml/core/export.py",
)

# Files that must name such a library at the top (they derive from its classes); they are themselves imported lazily.
HEAVY_FILES: dict[str, str] = {"sciml/files/lazy.py": "derives from xarray's BackendArray"}

NETWORK = frozenset({"socket", "urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "xmlrpc"})
UNPICKLERS = frozenset({"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"})

METHOD_FOLDERS = ("solvers", "samplers", "learned", "networks", "priors", "forward")
NO_EXAMPLE: dict[str, str] = {}

LONGEST = 400
LONGER: dict[str, str] = {}

LOADER = "sciml/catalogue.py"


class Import(NamedTuple):
    """One imported module: its full name, its line, whether it runs only when a function is called, or never."""

    name: str
    line: int
    lazy: bool
    typing: bool = False


def sources(root: Path, folder: str = "sciml") -> dict[str, str]:
    """All Python files below a folder of the clone."""
    return {str(path.relative_to(root)): path.read_text() for path in sorted((root / folder).rglob("*.py"))}


def imports(path: str, text: str) -> Iterator[Import]:
    """Every import of a file, relative ones resolved; under TYPE_CHECKING nothing runs, so that counts as lazy."""
    package = Path(path).parent.parts

    def walk(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, lazy, typing) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = ".".join(package[: len(package) + 1 - child.level]) if child.level else ""
                module = ".".join(part for part in (base, child.module or "") if part)
                if module == "sciml" or module.count(".") == 0 and module == base:
                    yield from (Import(f"{module}.{alias.name}", child.lineno, lazy, typing) for alias in child.names)
                else:
                    yield Import(module, child.lineno, lazy, typing)
            elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module") and child.args:
                if isinstance(child.args[0], ast.Constant):
                    yield Import(str(child.args[0].value), child.lineno, lazy, typing)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from walk(child, lazy or function or typing_only, typing or typing_only)

    yield from walk(ast.parse(text), False, False)


def _part(path: str) -> str:
    """The folder or file at the top of the package that a path lies in."""
    return Path(path).parts[1].removesuffix(".py")


def layers(files: dict[str, str]) -> list[str]:
    """Imports run downwards; folders on one floor do not import each other except as listed."""
    faults = []
    for path, text in files.items():
        here = _part(path)
        if here not in FLOORS:
            faults.append(f"{path}: {here} stands on no floor; add it to FLOORS")
            continue
        for item in imports(path, text):
            parts = item.name.split(".")
            if parts[0] != "sciml" or here in ("__init__", "__main__") or item.name in EVERYWHERE:
                continue
            there = parts[1] if len(parts) > 1 else "__init__"
            if there == here:
                continue
            if there not in FLOORS:  # a public name of the package itself, or nothing we know
                there = "__init__"
            allowed = SIDEWAYS.get((here, there), ("never", ""))[0]
            sideways = allowed == "top" or (allowed == "lazy" and item.lazy)
            if FLOORS[there] >= FLOORS[here] and not sideways and here != "cli":
                faults.append(f"{path}:{item.line}: {here} imports {item.name}, which is not below it")
    return faults


def heavy(files: dict[str, str]) -> list[str]:
    """`import sciml` costs torch: the rest is imported inside functions, files and plots where listed."""
    faults = []
    for path, text in files.items():
        for item in imports(path, text):
            library = item.name.split(".")[0]
            if item.name.replace(".", "/") + ".py" in HEAVY_FILES and not item.lazy:
                faults.append(f"{path}:{item.line}: {item.name} is slow to import; import it inside the function")
            if library in HEAVY and not item.lazy and _part(path) != "cli" and path not in HEAVY_FILES:
                faults.append(f"{path}:{item.line}: {library} is imported at the top; import it inside the function")
            if library in FILE_LIBRARIES and not item.typing and not path.startswith(FILE_LIBRARIES_ALLOWED):
                faults.append(f"{path}:{item.line}: {library} belongs to files, training, show and Solution")
    return faults


def lengths(files: dict[str, str]) -> list[str]:
    """Files stay under 400 lines."""
    return [
        f"{path}: {text.count(chr(10))} lines; split it, or list it with a reason"
        for path, text in files.items()
        if text.count("\n") > LONGEST and path not in LONGER
    ]


def class_names(files: dict[str, str]) -> list[str]:
    """No 1d, 2d, 3d, Base, Manager or Utils in the name of a class; no utils file."""
    faults = [f"{path}: name the file for what it does" for path in files if re.search(r"(utils?|helpers?)\.py$", path)]
    for path, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and re.search(r"[123][dD]|^Base|Base$|Manager|Utils?", node.name):
                faults.append(f"{path}:{node.lineno}: class {node.name} is named for its dimension or its place")
    return faults


def prints(files: dict[str, str]) -> list[str]:
    """Nothing prints but the command line."""
    return [
        f"{path}:{node.lineno}: print; return the text, or leave it to the command line"
        for path, text in files.items()
        if _part(path) not in ("cli", "__main__")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def dangers(files: dict[str, str]) -> list[str]:
    """Nothing is unpickled or evaluated, no process starts, no network is reached; only the loader runs a file."""
    faults = []
    for path, text in files.items():
        for item in imports(path, text):
            if item.name.split(".")[0] in NETWORK:
                faults.append(f"{path}:{item.line}: {item.name} reaches the network")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            settings = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
            owner, _, name = called.rpartition(".")
            where = f"{path}:{node.lineno}: {called}"
            if called in ("eval", "exec", "compile", "__import__") and path != LOADER:
                faults.append(f"{where} runs text")
            elif owner.split(".")[0] in UNPICKLERS and name in ("load", "loads", "Unpickler", "open"):
                faults.append(f"{where} unpickles")
            elif called == "torch.load" and settings.get("weights_only") != "True":
                faults.append(f"{where} without weights_only=True")
            elif settings.get("allow_pickle", "False") != "False":
                faults.append(f"{where} allows pickles")
            elif called in ("os.system", "os.popen") or owner == "subprocess":
                faults.append(f"{where} starts a process")
            elif name in ("spec_from_file_location", "run_path") and path != LOADER:
                faults.append(f"{where} runs a file; only the loader does")
    return faults


def examples(files: dict[str, str]) -> list[str]:
    """One method, one file, with an `example()` and a docstring; files that begin with _ are parts of others."""
    faults = []
    for path, text in files.items():
        name = Path(path).name
        if _part(path) not in METHOD_FOLDERS or name.startswith("_") or path in NO_EXAMPLE:
            continue
        tree = ast.parse(text)
        if not any(isinstance(node, ast.FunctionDef) and node.name == "example" for node in tree.body):
            faults.append(f"{path}: no example()")
        documented = [node for node in (tree, *tree.body) if isinstance(node, ast.Module | ast.ClassDef)]
        if max(len(ast.get_docstring(node) or "") for node in documented) < 80:
            faults.append(f"{path}: no docstring that says what the method is")
    return faults


def reexports(files: dict[str, str]) -> list[str]:
    """The `__init__.py` of a folder only re-exports."""
    kinds = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    faults = []
    for path, text in files.items():
        if Path(path).name != "__init__.py" or len(Path(path).parts) < 3:
            continue
        for node in ast.parse(text).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not isinstance(node, kinds) and not docstring:
                faults.append(f"{path}:{node.lineno}: more than re-exports")
    return faults


def banned(files: dict[str, str]) -> list[str]:
    """Nothing imports the catalogue or the data."""
    return [
        f"{path}:{item.line}: imports {item.name}; load it by name"
        for path, text in files.items()
        for item in imports(path, text)
        if item.name.split(".")[0] in ("problems", "data")
    ]


def asserts(files: dict[str, str]) -> list[str]:
    """An assert narrows a type; what a user may have got wrong raises InputError."""
    faults = []
    for path, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assert):
                test = ast.unparse(node.test)
                if not re.fullmatch(r"(isinstance\(.*\)|[\w.\[\]]+ is not None|( and )?)+", test):
                    faults.append(f"{path}:{node.lineno}: assert {test}; raise InputError, or narrow a type")
    return faults


RULES = (layers, heavy, lengths, class_names, prints, dangers, examples, reexports, banned, asserts)
