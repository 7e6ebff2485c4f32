"""Every network has a story, and the stories run."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

import sciml.networks

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("networks_example", EXAMPLES / "networks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_no_network_is_left_out() -> None:
    told = "".join((EXAMPLES / name).read_text() for name in ("networks.py", "unfolded.py"))
    public = [name for name, value in vars(sciml.networks).items() if inspect.isclass(value)]
    assert len(public) > 12
    assert [name for name in public if f"{name}(" not in told] == []


@pytest.mark.filterwarnings("ignore:BUDGET")
def test_stories_run(tmp_path: Path) -> None:
    module = loaded()
    names = ("fno", "mlp", "convex")
    found = module.main(names, tmp_path / "all.png", tmp_path, share=0.05)
    assert list(found) == list(names) and all(one.weights > 100 for one in found.values())
    assert found["fno"].error < 0.5 and found["mlp"].error < 0.2  # zero would be 1
    assert (tmp_path / "all.png").stat().st_size > 10_000
    with pytest.raises(SystemExit, match="there are fno"):
        module.main(("transformer",), None, tmp_path)
