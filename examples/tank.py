"""A water tank seen from its rim: two measurements of the Kuopio Tomography Challenge 2023, reconstructed with one setting and scored.

``python examples/tank.py FOLDER picture.png`` with the folder that holds ``ref.mat`` (the tank without objects), ``data1.mat``, ``data2.mat`` and
their truths. Total variation of the logarithm of the conductivity on a mesh, the complete electrode model, the primal-dual Newton
method; kinds of material by Otsu's thresholds; the score is the challenge's. The data: Räsänen and others,
doi 10.5281/zenodo.8252370, CC BY 4.0. *Fails when* electrodes were moved between reference and measurement.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import sciml
from sciml.metrics import ktc_score


def main(folder: str | Path, picture: str | Path | None = None, which: Sequence[int] = (1, 2)) -> dict[str, float]:
    """Scores, one at best, of the measurements ``which``; the picture shows reconstruction, kinds of material and truth."""
    reference, numbers, shown = sciml.open_dataset(Path(folder) / "ref.mat"), {}, []
    for number in which:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the reader tells how many voltages are missing
            data = sciml.open_dataset(Path(folder) / f"data{number}.mat")
        eit = sciml.problem("eit", data=data, reference=reference)
        solution = sciml.solve(eit)
        kinds = eit.forward.kinds(solution.value)[0]
        truth = sciml.open_dataset(Path(folder) / f"true{number}.mat")["truth"].values
        numbers[f"data{number}"] = float(ktc_score(kinds, torch.as_tensor(truth)))
        shown.append((f"data{number}", eit.space.domain, solution, kinds, truth))
    if picture is not None:
        draw(shown, numbers, picture)
    return numbers


def draw(shown: list[tuple], numbers: dict[str, float], picture: str | Path) -> None:
    """A row for each measurement."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.1 * len(shown)), layout="constrained")
    for axes, (name, mesh, solution, kinds, truth) in zip(
        figure.subplots(len(shown), 3, squeeze=False), shown, strict=True
    ):
        x, y = np.asarray(mesh.nodes).T
        values = solution.value[0, 0].numpy()
        field = axes[0].tripcolor(
            x, y, np.asarray(mesh.triangles), values, shading="gouraud", cmap="RdBu_r", vmin=-3.5, vmax=3.5
        )
        figure.colorbar(field, ax=axes[0], shrink=0.8, label="log of conductivity over background")
        axes[0].set_title(f"{name}: {solution.code.name}")
        axes[0].set_aspect("equal")
        axes[1].imshow(np.asarray(kinds))
        axes[1].set_title(f"kinds of material, score {numbers[name]:.2f}")
        axes[2].imshow(truth)
        axes[2].set_title("truth")
        for one in axes:
            one.axis("off")
    figure.savefig(picture, dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", help="holds ref.mat, data1.mat, data2.mat, true1.mat, true2.mat")
    parser.add_argument("picture", nargs="?", default="tank.png")
    chosen = parser.parse_args()
    for key, value in main(chosen.folder, chosen.picture).items():
        print(f"{key}: score {value:.3f} of 1")
    print(f"see {chosen.picture}")
