"""What a calibration record is a record of: every part of the model that data can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sciml
from sciml.core.calibration import digest
from sciml.core.inverse import Inverse
from sciml.core.noise import GaussianNoise
from sciml.domains import Mesh, Pixels, disc
from sciml.forward import Fourier, Impedance, Mask, PointElectrodes, adjacent
from sciml.networks import UNet
from sciml.priors import Diffusion, Gaussian, MagnitudePhase
from sciml.samplers.gaussian_posterior import GaussianPosterior
from sciml.solvers import Calibrated, PrimalDual

PIXELS = Pixels((9, 7), (1.0, 0.7))
GENERATOR = torch.Generator().manual_seed(0)
UPPER, LOWER = (torch.arange(9)[:, None].expand(9, 7) // part == 0 for part in (4, 6))


def magnetic(mask: torch.Tensor, prior: Any = None) -> Inverse[Any]:
    forward = Fourier(PIXELS, torch.ones(2, 9, 7, dtype=torch.complex128), mask)
    data = torch.zeros(1, *forward.codomain.shape, dtype=torch.complex128)
    return Inverse("scan", forward, data, GaussianNoise(0.1), prior or MagnitudePhase(Gaussian()))


def hidden(mask: torch.Tensor, sigma: float | torch.Tensor = 0.1, batch: int = 1) -> Inverse[Any]:
    data = torch.zeros(batch, 1, 9, 7, dtype=torch.float64)
    return Inverse("hidden", Mask(PIXELS.space(), mask), data, GaussianNoise(sigma, measured=mask), Gaussian())


def diffusion(seed: int) -> MagnitudePhase:
    network = UNet(2, widths=(4, 6), blocks=1, features=4)
    generator = torch.Generator().manual_seed(seed)
    for value in network.parameters():
        value.data = 0.1 * torch.randn(value.shape, generator=generator)
    return MagnitudePhase(Diffusion(network))


def tank(mesh: Mesh) -> Inverse[Any]:
    forward = Impedance(mesh, PointElectrodes(), adjacent(4), image=None)
    data = torch.zeros(1, *forward.codomain.shape, dtype=torch.float64)
    return Inverse("tank", forward, data, GaussianNoise(0.1))


def test_masks_meshes_and_wrapped_networks_are_part_of_the_model() -> None:
    assert digest(magnetic(UPPER)) == digest(magnetic(UPPER.clone()))
    assert digest(magnetic(UPPER)) != digest(magnetic(LOWER))
    assert digest(hidden(UPPER)) == digest(hidden(UPPER.clone()))
    assert digest(hidden(UPPER)) != digest(hidden(LOWER))
    assert digest(magnetic(UPPER, diffusion(0))) == digest(magnetic(UPPER, diffusion(0)))
    assert digest(magnetic(UPPER, diffusion(0))) != digest(magnetic(UPPER, diffusion(1)))
    mesh = disc(nodes=40, electrodes=4)
    wider = Mesh(1.1 * mesh.nodes, mesh.triangles, mesh.sides)
    assert digest(tank(mesh)) == digest(tank(Mesh(mesh.nodes, mesh.triangles, mesh.sides)))
    assert digest(tank(mesh)) != digest(tank(wider))


def test_a_record_of_one_member_says_nothing_of_another() -> None:
    sampler = GaussianPosterior(samples=4)
    alike = hidden(UPPER, batch=2)
    assert Calibrated(sampler, sciml.calibrate(alike, sampler, cases=2)).accepts(alike) is None
    several = hidden(UPPER, torch.tensor([0.1, 1.0], dtype=torch.float64), batch=2)
    record = sciml.calibrate(several, sampler, cases=2)
    assert Calibrated(sampler, record).accepts(several.member(0)) is None
    for problem in (several, several.member(1)):
        reason = Calibrated(sampler, record).accepts(problem)
        assert reason is not None and "another model, noise or prior" in reason


def test_other_truths_do_not_continue_a_record(tmp_path: Path) -> None:
    truths = torch.randn(3, 1, 9, 7, generator=GENERATOR, dtype=torch.float64)
    problem, sampler, out = hidden(UPPER), GaussianPosterior(samples=4), tmp_path / "record.json"
    first = sciml.calibrate(problem, sampler, cases=2, truths=truths, out=out)
    longer = sciml.calibrate(problem, sampler, cases=3, truths=truths, out=out)
    assert torch.equal(longer.ranks[:2], first.ranks)
    with pytest.raises(sciml.InputError, match="another truth in case 1"):
        sciml.calibrate(problem, sampler, cases=3, truths=2 * truths, out=out)


BAD = {
    "nothing drawn": (lambda p: sciml.calibrate(p, PrimalDual(), truths=torch.zeros(64, 1, 9, 7)), "draws nothing"),
    "shape": (lambda p: sciml.calibrate(p, GaussianPosterior(), truths=torch.zeros(64, 1, 9)), "finite images"),
    "not finite": (
        lambda p: sciml.calibrate(p, GaussianPosterior(), truths=torch.full((64, 1, 9, 7), torch.nan)),
        "finite images",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    call, sentence = BAD[name]
    problem = hidden(UPPER)
    if name == "nothing drawn":
        problem = problem.with_prior(sciml.priors.TotalVariation(), 1.0)
    with pytest.raises(sciml.InputError, match=sentence):
        call(problem)
