"""Poisson's equation by conditioning a Gaussian process on it: a function, and how far the truth may be from it.

`main()` returns the errors of the process and of the grid's own solution, which the tests pin.
"""

from __future__ import annotations

import warnings

import torch

import sciml
from sciml.learned import GaussianProcess, Matern


def main(n: int = 15) -> dict[str, float]:
    """Errors are relative to the manufactured solution at the nodes; the deviation is taken between them."""
    poisson = sciml.problem("poisson", dim=2, n=n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UNCERTIFIED: another discretisation than the grid's differences
        posterior = sciml.solve(poisson, GaussianProcess(Matern(length=0.5, smoothness=4), samples=8))
    differences = sciml.solve(poisson)
    exact = poisson.exact
    assert exact is not None and posterior.field is not None and posterior.samples is not None
    points = torch.tensor([[0.31, 0.52], [0.77, 0.18]], dtype=torch.float64)  # anywhere
    return {
        "error": float((posterior.value - exact).norm() / exact.norm()),
        "error of differences": float((differences.value - exact).norm() / exact.norm()),
        "mean": float(posterior.field(points)[0, 0, 0]),
        "deviation": float(posterior.field.deviation(points)[0, 0, 0]),  # type: ignore[attr-defined]
        "spread": float(posterior.samples.std(0).max()),
    }


if __name__ == "__main__":
    print(main())
