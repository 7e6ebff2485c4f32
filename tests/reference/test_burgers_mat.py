"""Somebody else's trajectory of Burgers' equation, computed by another code, followed over its whole window."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import sciml


def distance(found: Tensor, truth: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - truth) / torch.linalg.vector_norm(truth))


def test_follows_the_trajectory(real_data: Path) -> None:
    """``usol`` (256, 101): x in [-8, 8) without the end point, t in [0, 10], viscosity 0.1; start is its first column.

    Measured: 7.2e-9 with the default step, 6.7e-9 with shorter ones, with collocation, and on 512 points, so that the
    remainder is the file's own error; 1e-7 leaves room.
    """
    import scipy.io

    data = scipy.io.loadmat(real_data / "pde" / "burgers.mat")
    truth = torch.from_numpy(data["usol"].real.T.copy())
    times = [float(t) for t in data["t"].ravel()]
    problem = sciml.problem("burgers", n=256, viscosity=0.1, length=16.0, times=times, start=truth[0])
    solution = sciml.solve(problem)
    assert solution.ok, str(solution)
    assert distance(solution.value[0, :, 0], truth) < 1e-7
    # Another viscosity by a thousandth is seen.
    other = sciml.solve(sciml.problem("burgers", n=256, viscosity=0.1001, length=16.0, times=times, start=truth[0]))
    assert distance(other.value[0, :, 0], truth) > 1e-6
