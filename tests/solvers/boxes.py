"""Diffusion on boxes as arrays: axes, conductances of faces, masses."""

from __future__ import annotations

import torch

from sciml.solvers._levels import Axis

Sides = tuple[str, ...]  # per axis: p periodic, or two letters, d Dirichlet and n Neumann, lower then upper


def diffusion(shape, extent, sides: Sides, coefficient=None, reaction=0.0, robin=0.0):
    """Axes, faces and mass of -div k grad u + c u, the coefficient given at the nodes (B, *shape)."""
    axes = []
    for n, length, side in zip(shape, extent, sides, strict=True):
        periodic, lower, upper = side == "p", side[0] == "n", side[-1] == "n"
        spacing = length / (n if periodic else n + 1 - lower - upper)
        axes.append(Axis(n, spacing, periodic, lower, upper))
    dim = len(axes)

    def outer(lines):
        total = torch.ones([1] * (dim + 1), dtype=torch.float64)
        for k, line in enumerate(lines):
            total = total * line.reshape([-1 if j == k + 1 else 1 for j in range(dim + 1)])
        return total

    widths = []
    for axis in axes:
        width = torch.full((axis.n,), axis.spacing, dtype=torch.float64)
        width[0] *= axis.weight(0)
        width[-1] *= axis.weight(1)
        widths.append(width)
    faces = []
    for k, axis in enumerate(axes):
        line = torch.full((axis.n + 1,), 1 / axis.spacing, dtype=torch.float64)
        if not axis.periodic:
            line[0] *= not axis.lower_node
            line[-1] *= not axis.upper_node
        face = outer([line if j == k else width for j, width in enumerate(widths)])
        if coefficient is not None:
            first, last = coefficient.narrow(k + 1, 0, 1), coefficient.narrow(k + 1, axis.n - 1, 1)
            padded = torch.cat([last if axis.periodic else first, coefficient, first if axis.periodic else last], k + 1)
            low, high = padded.narrow(k + 1, 0, axis.n + 1), padded.narrow(k + 1, 1, axis.n + 1)
            face = face * (2 * low * high / (low + high))
        faces.append(face)
    mass = outer(widths) * reaction if reaction or robin else None
    if robin and mass is not None:
        for k, axis in enumerate(axes):
            surface = outer([torch.ones(1, dtype=torch.float64) if j == k else width for j, width in enumerate(widths)])
            if axis.lower_node:
                mass.narrow(k + 1, 0, 1).add_(robin * surface)
            if axis.upper_node:
                mass.narrow(k + 1, axis.n - 1, 1).add_(robin * surface)
    return axes, faces, mass
