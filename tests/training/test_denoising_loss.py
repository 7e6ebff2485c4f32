"""What `fit` returns for a denoiser: the loss, and the number that belongs to the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sciml
from sciml.networks import UNet
from sciml.priors import Diffusion
from sciml.training.denoising import EDM


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 6, 5, generator=torch.Generator().manual_seed(seed))


def test_the_error_told_is_that_of_the_weights_returned(tmp_path: Path) -> None:
    """Those after the last epoch, also where an earlier one did better, and where a finished run is called again."""

    def run() -> Any:
        prior = Diffusion(UNet(2, widths=(4,), blocks=1, fold=1, features=4))
        how: dict[str, Any] = {"epochs": 3, "steps": 3, "learning_rate": 0.3, "progress": False, "out": tmp_path}
        return sciml.fit(prior, images(20, 0), validate=images(8, 1), **how)

    found = run()
    errors = [row["validation"] for row in found.history]
    assert found.best_epoch == 3 and found.best_error == errors[-1] > min(errors)
    with torch.no_grad():
        again = float(EDM()(found.prior, images(8, 1), torch.Generator().manual_seed(0)))
    assert abs(again - errors[-1]) < 1e-6 * errors[-1]
    assert run().best_error == errors[-1]


def test_the_loss_is_that_of_the_network_itself() -> None:
    r"""With ``s = sigma / scale`` a denoiser that answers ``x / (1 + s^2)``, the best linear one for white images of deviation
    ``scale``, has the mean square error ``scale^2 s^2 / (1 + s^2)``, which the weight ``1 + 1 / s^2`` makes one at every level.

    Means of 4000 x 30 squares: a standard error of a hundredth at most, at whatever level.
    """

    class Linear:
        scale, levels = 3.0, (0.03, 30.0)

        def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x / (1 + (sigma.reshape(-1, 1, 1, 1) / self.scale) ** 2).to(x)

    clean = 3.0 * torch.randn(4000, 1, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for loss in (EDM(), EDM(mean=-3.0, deviation=0.1, share=0.0), EDM(mean=2.0, deviation=0.1, share=0.0)):
        value = float(loss(Linear(), clean, torch.Generator().manual_seed(1)))
        assert abs(value - 1) < 0.02
    Linear.scale = 1.5  # the data have another one, which a high level shows
    assert float(EDM(mean=2.0, deviation=0.1, share=0.0)(Linear(), clean, torch.Generator().manual_seed(1))) > 1.5
