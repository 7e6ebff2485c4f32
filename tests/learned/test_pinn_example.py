"""The example that finds a viscosity, on a small flow."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path


def test_the_viscosity_is_found_and_judged_by_a_classical_solver() -> None:
    path = Path(__file__).resolve().parents[2] / "examples" / "pinn.py"
    spec = importlib.util.spec_from_file_location("pinn_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numbers = module.main(viscosity=0.1, sensors=20, n=64, points=200, steps=60)
    # 100 values with 1 % noise: the bound of Cramer and Rao is about 1 % here
    assert numbers["relative error"] < 0.03
    assert numbers["certified"] == 1.0 and numbers["misfit"] < 0.3
    assert numbers["flow, relative L2"] < 0.02
