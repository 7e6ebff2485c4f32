"""`import sciml` costs torch and nothing else, writes nothing and warns nothing; its names are typed and explained."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rules

SLOW = sorted(rules.HEAVY)


def run(code: str, root: Path, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in an empty folder that knows this clone only."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-B", *options, "-c", code]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120)


LOADED = f"import sys; print([name for name in {SLOW!r} if name in sys.modules])"


def test_importing_is_quiet_and_light(root: Path, tmp_path: Path) -> None:
    torch_alone = run(f"import torch; {LOADED}", root, tmp_path)
    done = run(f"import sciml; {LOADED}", root, tmp_path, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == torch_alone.stdout, f"import sciml also imports {done.stdout}"
    assert not list(tmp_path.iterdir()), "import sciml wrote something"


def test_the_check_of_imports_can_fail(root: Path, tmp_path: Path) -> None:
    done = run(f"import h5py; {LOADED}", root, tmp_path)
    assert "h5py" in done.stdout


def public() -> dict[str, Any]:
    """The public names and what they stand for."""
    import sciml

    return {name: getattr(sciml, name) for name in sciml.__all__ if not name.startswith("__")}


def unexplained(name: str, value: Any) -> list[str]:
    """What is missing from a public class or function: a docstring of its own, annotations."""
    faults = []
    if not (inspect.isclass(value) or callable(value)):
        return faults
    text = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    if not text or text.startswith(f"{name}("):  # what dataclass writes when nobody else does
        faults.append(f"{name} has no docstring")
    functions = {name: value}
    if inspect.isclass(value):
        functions = {
            f"{name}.{key}": getattr(member, "__func__", member)
            for key, member in vars(value).items()
            if not key.startswith("_") and inspect.isfunction(getattr(member, "__func__", member))
        }
    for label, function in functions.items():
        if not inspect.isfunction(function):
            continue
        if inspect.isclass(value) and not function.__doc__:
            inherited = any(
                getattr(getattr(base, function.__name__, None), "__doc__", None) for base in value.__mro__[1:]
            )
            if not inherited:
                faults.append(f"{label} has no docstring")
        needed = [key for key in inspect.signature(function).parameters if key not in ("self", "cls")]
        bare = [key for key in (*needed, "return") if key not in function.__annotations__]
        if bare:
            faults.append(f"{label}: no annotation for {', '.join(bare)}")
    return faults


def test_public_names_are_typed_and_explained(root: Path) -> None:
    names = public()
    assert 20 <= len(names) <= 60, f"{len(names)} public names; DESIGN says about 30"
    assert not [fault for name, value in names.items() for fault in unexplained(name, value)]
    assert (root / "sciml" / "py.typed").exists()


def test_the_check_of_names_can_fail() -> None:
    from dataclasses import dataclass

    def bare(x, y: int = 0):  # type: ignore[no-untyped-def]
        return x

    @dataclass
    class Silent:
        x: int

        def method(self) -> int:
            return self.x

    assert unexplained("bare", bare) == ["bare has no docstring", "bare: no annotation for x, return"]
    assert unexplained("Silent", Silent) == ["Silent has no docstring", "Silent.method has no docstring"]


def test_unknown_names_are_refused() -> None:
    import sciml

    with pytest.raises(AttributeError):
        sciml.no_such_name  # noqa: B018
    assert set(sciml.__all__) <= set(dir(sciml))
