"""Find the viscosity of a fluid from a few noisy sensors, and the whole flow with it.

Burgers' equation with an unknown viscosity runs from a known start; ``sensors`` places are watched at five times, with noise of
1 % of the largest velocity. The network learns the flow while the viscosity is a number beside its weights, and a classical
solver judges the answer: it solves the equation with the viscosity that was found and compares with the data (``misfit``).

    python examples/pinn.py

*Fails when* the sensors see too little of what viscosity does: far from the front, or before it has formed.
"""

from __future__ import annotations

import math
import sys

import torch

import sciml
from sciml.core import GaussianNoise, Inverse
from sciml.forward import ParameterToState
from sciml.learned import PINN
from sciml.learned.pinn import ResidualAdaptive
from sciml.solvers import ExponentialRungeKutta


def main(
    viscosity: float = 0.05, guess: float = 0.2, sensors: int = 40, n: int = 128, points: int = 600, steps: int = 80
) -> dict[str, float]:
    """The viscosity that was found, its relative error, the misfit, and how far the network's flow is from the true one."""
    times = (0.2, 0.4, 0.6, 0.8, 1.0)
    x = torch.arange(n, dtype=torch.float64) * 2 / n
    start = torch.sin(math.pi * x)
    flow = sciml.problem("burgers", n=n, viscosity=guess, length=2.0, times=times, start=start)
    generator = torch.Generator().manual_seed(0)
    places = 2 * torch.rand(sensors, 1, dtype=torch.float64, generator=generator)
    seen = ParameterToState(flow, "viscosity", solver=ExponentialRungeKutta(), observe=places)
    clean = seen(torch.full((1, *seen.space.shape), viscosity, dtype=torch.float64))
    noise = 0.01 * float(clean.abs().max())
    data = clean + noise * torch.randn(clean.shape, dtype=torch.float64, generator=generator)
    posed = Inverse("viscosity from sensors", seen, data, GaussianNoise(noise))

    solution = sciml.solve(posed, PINN(sampling=ResidualAdaptive(points), max_steps=steps))
    found = float(solution.value.reshape(()))
    truth = sciml.solve(flow.replace(viscosity=viscosity)).value[0, -1, 0]
    ahead = torch.stack((x, torch.ones_like(x)), 1)
    network = solution.field(ahead)[0, 0] if solution.field is not None else torch.zeros_like(x)
    return {
        "viscosity": found,
        "relative error": abs(found / viscosity - 1),
        "misfit": float(solution.check("misfit").value),
        "certified": float(solution.ok),
        "flow, relative L2": float((network - truth).norm() / truth.norm()),
    }


if __name__ == "__main__":
    for name, number in main().items():
        sys.stdout.write(f"{name}: {number:.4g}\n")
