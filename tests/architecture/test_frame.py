"""The frame around the package: exact constraints, the promised make targets, a suite without network."""

from __future__ import annotations

import re
import socket
import tomllib
from pathlib import Path

import pytest


def loose(text: str) -> list[str]:
    """Lines of a constraints file that are not one exact public version."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line)]


def test_constraints_are_exact(root: Path) -> None:
    text = (root / "constraints.txt").read_text()
    assert not loose(text)
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in text.splitlines() if "==" in line}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for need in (*project["dependencies"], *extras["test"], *extras["bench"]):
        name = re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[]", need)[0]).lower()
        assert name in pinned, f"{need} is not pinned"


@pytest.mark.parametrize(
    "line", ["torch>=2.0", "torch==2.13.0+cpu", "--index-url https://host/simple", "x @ file:///y"]
)
def test_a_loose_constraint_is_caught(line: str) -> None:
    assert loose(f"numpy==2.4.6\n{line}\n") == [line]


def test_make_has_the_promised_targets(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    for target in ("demo", "test", "check", "bench", "gpu"):
        assert re.search(rf"^{target}:", makefile, flags=re.M), f"make {target} is gone"
    assert "make test" in (root / ".ci" / "run").read_text()


def test_the_five_folders_are_there(root: Path) -> None:
    for folder in ("sciml", "problems", "data", "examples", "tests"):
        assert (root / folder).is_dir()
    for folder in ("problems", "data"):
        assert not list((root / folder).rglob("__init__.py")), f"{folder} is not a package"


def test_the_network_is_blocked() -> None:
    with pytest.raises(RuntimeError, match="do not use the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)  # an address reserved for documentation
    with pytest.raises(RuntimeError, match="do not use the network"):
        socket.getaddrinfo("example.org", 80)


def test_loopback_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
        pass
