"""The picture of the package in the README shows the package as it is."""

from __future__ import annotations

import re
from pathlib import Path


def picture(readme: str) -> str:
    """The fenced block that draws the package: the first one with a line that begins with `sciml/`."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", readme, flags=re.M | re.S):
        if re.search(r"^sciml/", block, flags=re.M):
            return str(block)
    return ""


def differences(readme: str, names: set[str]) -> list[str]:
    """Names at the top of `sciml/` that the picture misses, and names in it that are gone."""
    block = picture(readme)
    if not block:
        return ["the README has no fenced picture with a line that begins with sciml/"]
    words = set(re.findall(r"[A-Za-z_]+(?:/|\.py)", block))
    faults = [f"{name} is missing from the picture" for name in sorted(names - words)]
    inside = block[re.search(r"^sciml/", block, flags=re.M).start() :].splitlines()[1:]  # type: ignore[union-attr]
    rows = [found for line in inside if (found := re.match(r"^([\s│├└─]+)([A-Za-z_]+(?:/|\.py))", line))]
    depth = min((len(row[1]) for row in rows), default=0)
    drawn = {row[2] for row in rows if len(row[1]) == depth}
    return faults + [f"{name} is drawn and does not exist" for name in sorted(drawn - names)]


def contents(root: Path) -> set[str]:
    """Folders and files at the top of the package, as the picture writes them."""
    found = {f"{path.name}/" for path in (root / "sciml").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    return found | {path.name for path in (root / "sciml").glob("*.py")}


def test_the_picture_is_true(root: Path) -> None:
    assert not differences((root / "README.md").read_text(), contents(root))


def test_the_check_can_fail() -> None:
    readme = "# sciml\n```text\nsciml/\n  core/      types\n  solvers/   methods\n  cli.py\n```\n"
    assert not differences(readme, {"core/", "solvers/", "cli.py"})
    assert differences(readme, {"core/", "solvers/", "cli.py", "show/"})
    assert differences(readme, {"core/", "cli.py"})
    assert differences(readme, {"core/", "solvers/"})
    assert differences("# sciml", {"core/"})
