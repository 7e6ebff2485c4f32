"""Five reconstructions of one scan, simulated."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_the_brain(tmp_path: Path) -> None:
    path = Path(__file__).resolve().parents[2] / "examples" / "brain.py"
    spec = importlib.util.spec_from_file_location("brain", path)
    assert spec is not None and spec.loader is not None
    brain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(brain)
    told = brain.main(None, tmp_path / "brain.png", samples=1, n=48, coils=4)
    assert list(told) == ["zero-filled", "CG-SENSE", "total variation", "wavelets", "diffusion, mean of 1"]
    assert told["zero-filled"]["chi^2/dof"] > 1.5  # the others follow the data to the noise
    for name in ("CG-SENSE", "total variation", "wavelets"):
        assert told[name]["outcome"] == "CONVERGED"
        assert 0.85 < told[name]["chi^2/dof"] < 1.15
    assert told["diffusion, mean of 1"]["outcome"] == "UNCERTIFIED"  # samples are certified by a record of calibration
    assert (tmp_path / "brain.png").stat().st_size > 10_000
