"""The package keeps the rules, and each rule catches text that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import rules

Rule = Callable[[dict[str, str]], list[str]]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule, root: Path) -> None:
    faults = rule(rules.sources(root))
    assert not faults, f"{rule.__doc__}\n" + "\n".join(faults)


def test_every_exception_is_still_needed(root: Path) -> None:
    files = rules.sources(root)
    used = {
        (rules._part(path), item.name.split(".")[1])
        for path, text in files.items()
        for item in rules.imports(path, text)
        if item.name.startswith("sciml.")
    }
    assert not set(rules.SIDEWAYS) - used, "exceptions that nothing uses"
    assert not [path for path in rules.LONGER if files.get(path, "").count("\n") <= rules.LONGEST]
    assert not set(rules.NO_EXAMPLE) - set(files)


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (rules.layers, "sciml/domains/grid.py", "from sciml.core.problem import Problem"),
        (rules.layers, "sciml/domains/grid.py", "def f():\n    from sciml.core.problem import Problem"),
        (rules.layers, "sciml/networks/fno.py", "from ..core import problem"),
        (rules.layers, "sciml/networks/fno.py", "from sciml.domains.grid import Grid"),
        (rules.layers, "sciml/core/problem.py", "from sciml import solve"),
        (rules.layers, "sciml/core/problem.py", "import sciml"),
        (rules.layers, "sciml/core/problem.py", "import importlib\nimportlib.import_module('sciml.cli')"),
        (rules.layers, "sciml/solvers/direct.py", "from sciml.learned.trained import Trained"),
        (rules.layers, "sciml/solvers/direct.py", "from ..show import plot"),
        (rules.layers, "sciml/attic/direct.py", ""),
        (rules.heavy, "sciml/files/record.py", "import h5py"),
        (rules.heavy, "sciml/show/plot.py", "import matplotlib.pyplot as plt"),
        (rules.heavy, "sciml/solvers/direct.py", "from scipy import fft"),
        (rules.heavy, "sciml/files/dataset.py", "from sciml.files.lazy import open_lazily"),
        (rules.heavy, "sciml/solvers/direct.py", "def f():\n    import xarray"),
        (rules.lengths, "sciml/metrics.py", "x = 1\n" * 401),
        (rules.class_names, "sciml/networks/fno.py", "class FNO2d: ..."),
        (rules.class_names, "sciml/solvers/direct.py", "class BaseSolver: ..."),
        (rules.class_names, "sciml/core/utils.py", ""),
        (rules.prints, "sciml/solving/solve.py", "def f():\n    print(1)"),
        (rules.dangers, "sciml/files/record.py", "import pickle\npickle.load(open('x'))"),
        (rules.dangers, "sciml/files/record.py", "import torch\ntorch.load('x')"),
        (rules.dangers, "sciml/files/record.py", "import torch\ntorch.load('x', weights_only=False)"),
        (rules.dangers, "sciml/files/record.py", "import numpy\nnumpy.load('x', allow_pickle=True)"),
        (rules.dangers, "sciml/core/problem.py", "eval('1')"),
        (rules.dangers, "sciml/core/problem.py", "exec('1')"),
        (rules.dangers, "sciml/files/record.py", "def f():\n    import urllib.request"),
        (rules.dangers, "sciml/files/record.py", "import subprocess\nsubprocess.run(['ls'])"),
        (rules.dangers, "sciml/cli.py", "import runpy\nrunpy.run_path('x.py')"),
        (rules.examples, "sciml/solvers/direct.py", '"""A docstring that says at length what the method is."""'),
        (rules.examples, "sciml/solvers/direct.py", "def example(): ..."),
        (rules.reexports, "sciml/solvers/__init__.py", "def f(): ..."),
        (rules.banned, "examples/demo.py", "from problems import poisson"),
        (rules.banned, "examples/demo.py", "import data.darcy"),
        (rules.asserts, "sciml/core/problem.py", "def f(x):\n    assert x > 0"),
    ],
)
def test_a_breach_is_caught(rule: Rule, path: str, text: str) -> None:
    assert rule({path: text})


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (rules.layers, "sciml/core/problem.py", "from sciml.domains.grid import Grid\nfrom .solver import Solver"),
        (rules.layers, "sciml/learned/trained.py", "from sciml.solvers.direct import Direct"),
        (rules.layers, "sciml/files/record.py", "from sciml.domains.errors import InputError"),
        (rules.heavy, "sciml/files/record.py", "def f():\n    import h5py"),
        (
            rules.heavy,
            "sciml/core/solution.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import xarray",
        ),
        (
            rules.dangers,
            "sciml/files/record.py",
            "import torch, re\ntorch.load('x', weights_only=True)\nre.compile('x')",
        ),
        (rules.dangers, "sciml/catalogue.py", "exec(compile('1', 'x', 'exec'))"),
        (rules.class_names, "sciml/core/problem.py", "class Database: ..."),
        (rules.prints, "sciml/cli.py", "print(1)"),
        (rules.asserts, "sciml/core/problem.py", "def f(x):\n    assert isinstance(x, int)\n    assert x is not None"),
        (rules.examples, "sciml/solvers/_transfer.py", ""),
        (
            rules.reexports,
            "sciml/solvers/__init__.py",
            '"""Solvers."""\nfrom .direct import Direct\n__all__ = ["Direct"]',
        ),
    ],
)
def test_what_is_allowed_passes(rule: Rule, path: str, text: str) -> None:
    assert not rule({path: text})


def test_nothing_imports_the_catalogue(root: Path) -> None:
    for folder in ("examples", "tests", "problems"):
        assert not rules.banned(rules.sources(root, folder))
