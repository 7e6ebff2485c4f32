"""`sciml data FILE` names the axes and the units of every measured layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scans

from sciml.cli import main


def kuopio(path: Path) -> None:
    scans.save(path, scans.ktc(gone=(0, 1)))


def finland(path: Path) -> None:
    scans.save(path, scans.finnish())


def lines(path: Path) -> None:
    noise = {"data": scans.signal(3, 40), "flag": scans.NOISE}
    scans.ismrmrd(path, scans.header((8, 5, 1)), [noise, *scans.lines(scans.signal(3, 5, 8))])


def array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, scans.signal(3, 5, 8))


TOLD: dict[str, tuple[Callable[[Path], Any], dict[str, tuple[str, str]], str]] = {
    "data1.mat": (
        kuopio,
        {"voltage": ("injection measurement", "V"), "current_pattern": ("injection electrode", "mA")},
        "are missing and left out",
    ),
    "datamat_1_0.mat": (
        finland,
        {"voltage_pattern": ("measurement electrode", "1"), "electrode_angle": ("", "rad")},
        "",
    ),
    "file1.h5": (scans.fastmri, {"kspace": ("slice coil kx ky", "1"), "mask": ("ky", "")}, ""),
    "scan.h5": (lines, {"kspace": ("coil ky kx", "1"), "noise_covariance": ("coil coil_conjugate", "1")}, ""),
    "ksp.npy": (array, {"kspace": ("coil ky kx", "1")}, "guessed as (coil, ky, kx)"),
}


@pytest.mark.parametrize("name", TOLD)
def test_axes_and_units_are_told(tmp_path: Path, capsys: Any, name: str) -> None:
    make, expected, aloud = TOLD[name]
    make(tmp_path / name)
    assert main(["data", str(tmp_path / name), "--json"]) == 0
    out, err = capsys.readouterr()
    assert aloud in err and bool(err) == bool(aloud)
    found = json.loads(out)
    rows = {row["variable"]: (" ".join(row["axes"]), row["unit"]) for row in found["variables"]}
    rows |= {row["coordinate"]: ("", row["unit"]) for row in found["coordinates"]}
    assert expected.items() <= rows.items() and found["attributes"]["source"] == name
    assert main(["data", str(tmp_path / name)]) == 0
    table = capsys.readouterr().out
    assert all(variable in table and unit in table for variable, (_, unit) in expected.items())
