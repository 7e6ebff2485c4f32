"""Impedance tomography beside pyEIT, in one process, in turn: `python -m tests.benchmark.impedance --out impedance.md`.

Task: voltages and the whole Jacobian in the conductivity of every triangle, on the same mesh, at a conductivity that varies over
it. Peer: `EITForward.compute_jac` of pyEIT (Liu et al., SoftwareX 7, 2018, doi:10.1016/j.softx.2018.09.005), which contains its
forward solve; its electrodes are points. Ours: `Impedance` with point electrodes at the same nodes (the voltages of both are
compared) and with the complete electrode model, `linearise(x).dense()`.

* small: 16 electrodes, neighbours inject, neighbours measure; pyEIT leaves out those that touch a driven electrode (208 of 256 voltages),
  ours are all 256;
* large: 32 electrodes, about 10 000 nodes; ours 76 random injections and 31 measurements, pyEIT its own 32 injections of neighbours.

* closed: no peer; the voltages of a concentric inclusion under eight gap or shunt electrodes beside the series in closed form, and the order in
  the size of the triangles.

A batch of 16 conductivities is timed beside a loop over them, forward and one product with the transposed Jacobian.

Seconds are medians of the repetitions after a warm-up, methods in turn (one repetition of pyEIT on the large mesh); "processor" is time computed, which
a busy machine disturbs less. Ratios are of wall clock, with the spread of paired repetitions. The floor is the Jacobian written once, at the speed at
which this process fills fresh memory. One thread for everybody unless `--threads` says otherwise.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.discretise import LinearElements, QuadraticElements
from sciml.domains import Mesh, disc
from sciml.forward import (
    CompleteElectrodes,
    GapElectrodes,
    Impedance,
    PointElectrodes,
    ShuntElectrodes,
    Spread,
    adjacent,
)
from tests.forward import discs
from tests.forward.discs import INNER, RHO, concentric, error

Timed = tuple[list[float], list[float]]


def conductivity(mesh: Mesh) -> Tensor:
    """Between 0.5 and 1.5, on the triangles."""
    x, y = mesh.elements.points()
    return (1 + 0.5 * (3 * x).sin() * (2 * y + 1).cos()).reshape(1, 1, -1)


def model(mesh: Mesh, electrodes: Any, currents: Tensor, dtype: torch.dtype = torch.float64) -> Impedance:
    """Our forward model for conductivities of the triangles."""
    return Impedance(mesh, electrodes, currents.to(dtype), image=Spread(mesh, mesh.elements.space(1, dtype)))


def patterns(electrodes: int, count: int) -> Tensor:
    """Random injections that sum to zero."""
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(electrodes, count, generator=generator, dtype=torch.float64)
    return found - found.mean(0)


class Peer:
    """pyEIT on our mesh, with electrodes at the middle nodes of the sides."""

    def __init__(self, mesh: Mesh, nodes: list[int]) -> None:
        from pyeit.eit.fem import EITForward
        from pyeit.eit.protocol import create
        from pyeit.mesh import PyEITMesh

        count = len(nodes)
        import numpy as np

        made = PyEITMesh(
            node=mesh.nodes.numpy(), element=mesh.triangles.numpy(), perm=1.0, el_pos=np.array(nodes), ref_node=nodes[0]
        )
        self.protocol = create(count, dist_exc=1, step_meas=1, parser_meas="std")
        self.forward = EITForward(made, self.protocol)

    def jacobian(self, sigma: Tensor) -> tuple[Any, Any]:
        """Jacobian and voltages."""
        found: tuple[Any, Any] = self.forward.compute_jac(sigma.reshape(-1).numpy())
        return found

    def difference(self, resistances: Tensor, voltages: Any) -> float:
        """The largest difference to the voltages that our matrix of resistances gives, over the largest voltage."""
        ours = []
        for (into, out), pairs in zip(self.protocol.ex_mat, self.protocol.meas_mat, strict=True):
            potential = resistances[:, into] - resistances[:, out]
            ours += [float(potential[a] - potential[b]) for a, b in pairs[:, :2]]
        mine, theirs = torch.tensor(ours, dtype=torch.float64), torch.as_tensor(voltages).reshape(-1)
        return float((mine - theirs).abs().max() / theirs.abs().max())


def timed(runs: dict[str, tuple[Callable[[], Any], int]], repetitions: int) -> dict[str, Timed]:
    """Seconds and processor seconds of every run, in turn; a run asked for once has no warm-up."""
    found: dict[str, Timed] = {name: ([], []) for name in runs}
    for repetition in range(repetitions + 1):
        for name, (run, most) in runs.items():
            if (repetition == 0 and most > 1) or (0 < repetition <= most):
                begin, computed = time.perf_counter(), time.process_time()
                run()
                if repetition:
                    found[name][0].append(time.perf_counter() - begin)
                    found[name][1].append(time.process_time() - computed)
    return found


def spread(values: list[float]) -> str:
    """Median, least and most."""
    middle = statistics.median(values)
    return f"{middle:.3g}" if len(values) == 1 else f"{middle:.3g} ({min(values):.3g} to {max(values):.3g})"


def floor(entries: int, size: int) -> float:
    """Seconds to fill fresh memory of that many entries."""
    found = []
    for _ in range(3):
        begin = time.perf_counter()
        torch.empty(entries, dtype=torch.float64 if size == 8 else torch.float32).fill_(1.0)
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the table, and every number beside it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a Markdown file; the numbers go to the same name with .json")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("small", "large", "closed"))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    lines, record = [], {}
    for name, nodes, electrodes, most in (("small", 1450, 16, chosen.repetitions), ("large", 9750, 32, 1)):
        if chosen.only not in (None, name):
            continue
        found, text = case(name, nodes, electrodes, most, chosen.repetitions)
        record[name] = found
        lines += ["", *text]
    if chosen.only in (None, "closed"):
        record["closed"], text = closed()
        lines += ["", *text]
    try:
        version = importlib.metadata.version("pyeit")
    except importlib.metadata.PackageNotFoundError:
        version = "left out: pip install pyeit shapely"
    head = f"Cores {os.cpu_count()}, {platform.machine()}, threads {chosen.threads}, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, pyEIT {version}."
    print("\n".join([head, *lines]))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text("\n".join([head, *lines]) + "\n")
        chosen.out.with_suffix(".json").write_text(json.dumps(record) + "\n")


def closed() -> tuple[list[dict[str, Any]], list[str]]:
    """Errors against the series, linear and quadratic elements, on two meshes each."""
    rows = []
    for name, series, electrodes in (("gap", discs.gap, GapElectrodes()), ("shunt", discs.shunt, ShuntElectrodes())):
        exact = series(8, 0.5, 1.0, INNER, RHO, count=50_000)
        for elements, meshes in (
            (LinearElements(), ((2000, 0.005), (8000, 0.001))),
            (QuadraticElements(), ((500, 0.02), (2000, 0.0025))),
        ):
            errors, unknowns = zip(
                *(error(*concentric(*mesh, 8), electrodes, elements, exact) for mesh in meshes), strict=True
            )
            order = math.log(errors[0] / errors[1]) / math.log(math.sqrt(unknowns[1] / unknowns[0]))
            kind = type(elements).__name__
            rows.append(
                {"electrodes": name, "elements": kind, "unknowns": unknowns[1], "error": errors[1], "order": order}
            )
    lines = [
        "closed form:",
        "",
        "| electrodes | elements | unknowns | relative error | order |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['electrodes']} | {row['elements']} | {row['unknowns']} | {row['error']:.2g} | {row['order']:.1f} |"
        for row in rows
    ]
    return rows, lines


def case(name: str, nodes: int, electrodes: int, most: int, repetitions: int) -> tuple[dict[str, Any], list[str]]:
    """One mesh: the Jacobians beside each other, and batches beside loops."""
    mesh = disc(nodes=nodes, electrodes=electrodes)
    sigma = conductivity(mesh)
    currents = adjacent(electrodes) if name == "small" else patterns(electrodes, 76)
    places = PointElectrodes()
    wiring = places.wiring(mesh, LinearElements())
    points = model(mesh, places, currents)
    complete = model(mesh, CompleteElectrodes(0.01), currents)
    single = model(mesh, CompleteElectrodes(0.01), currents, torch.float32)
    at_nodes = Impedance(mesh, CompleteElectrodes(0.01), currents)
    runs: dict[str, tuple[Callable[[], Any], int]] = {
        "ours, points": (lambda: points.linearise(sigma).dense(), repetitions),
        "ours, complete": (lambda: complete.linearise(sigma).dense(), repetitions),
        "ours, complete, entries in float32": (lambda: single.linearise(sigma.float()).dense(), repetitions),
        "ours, complete, nodes": (lambda: at_nodes.linearise(nodal).dense(), repetitions),
        "ours, complete, voltages alone": (lambda: complete(sigma), repetitions),
    }
    nodal = torch.ones(1, 1, len(mesh.nodes), dtype=torch.float64)
    off, peer = None, None
    try:
        peer = Peer(mesh, wiring.load.argmax(0).tolist())
        runs["pyEIT"] = (lambda: peer.jacobian(sigma), most)
    except ImportError:
        pass
    found = timed(runs, repetitions)
    if peer is not None:
        off = peer.difference(
            points.resistances(points.potentials(sigma))[0], peer.forward.solve_eit(sigma.reshape(-1).numpy())
        )
    several = sigma * (1 + 0.1 * torch.arange(16, dtype=torch.float64)).reshape(-1, 1, 1)
    weights = torch.ones(16, *complete.codomain.shape, dtype=torch.float64)

    def product(x: Tensor, w: Tensor) -> Tensor:
        return complete.linearise(x).adjoint(w)

    batches: dict[str, tuple[Callable[[], Any], int]] = {
        "batch of 16": (lambda: product(several, weights), repetitions),
        "loop over 16": (lambda: [product(several[i : i + 1], weights[i : i + 1]) for i in range(16)], repetitions),
    }
    together = timed(batches, repetitions)
    entries = points.codomain.size * len(mesh.triangles)
    text = [
        f"{name}: {len(mesh.nodes)} nodes, {len(mesh.triangles)} triangles, {electrodes} electrodes, {currents.shape[1]} injections, {points.codomain.shape[2]} measurements; Jacobian {entries * 8 / 1e6:.0f} MB, floor {floor(entries, 8):.3g} s.",
        *([] if off is None else [f"Largest difference of the voltages to pyEIT's, over the largest: {off:.1e}."]),
        "",
        "| method | s | processor s | pyEIT over it |",
        "|---|---|---|---|",
    ]
    for label, (wall, computed) in found.items():
        ratios = [p / w for p in found["pyEIT"][0] for w in wall] if "pyEIT" in found else []
        text.append(f"| {label} | {spread(wall)} | {spread(computed)} | {spread(ratios) if ratios else ''} |")
    for label, (wall, computed) in together.items():
        text.append(f"| {label}, forward and transposed product | {spread(wall)} | {spread(computed)} | |")
    return {"times": found, "batches": together, "difference": off}, text


if __name__ == "__main__":
    main()
