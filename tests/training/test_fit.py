"""Training: what is returned, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.networks import FNO
from sciml.training.fit import fit
from sciml.training.fitted import Fit
from sciml.training.losses import H1, RelativeL2, relative_h1, relative_l2
from sciml.training.optimisers import AdamW
from sciml.training.samples import pairs, split, windows
from sciml.training.schedules import Constant, Cosine, OneCycle


def data(members: int = 40, n: int = 24, seed: int = 0) -> xarray.Dataset:
    """Smooth periodic fields and twice their derivative: a linear map that one spectral layer can express."""
    random = np.random.default_rng(seed)
    x = np.arange(n) / n
    k = 2 * np.pi * np.arange(1, 4)[:, None]
    c, s = random.normal(size=(2, members, 3))
    a = c @ np.cos(k * x) + s @ np.sin(k * x) + 3
    u = (s * k[:, 0]) @ np.cos(k * x) - (c * k[:, 0]) @ np.sin(k * x)
    return xarray.Dataset(
        {"a": (("sample", "x"), a), "u": (("sample", "x"), 2 * u), "b": (("sample", "x"), np.roll(a, 3, axis=1))},
        coords={"x": x},
    )


def small(**settings: Any) -> FNO:
    return FNO(**{"dim": 1, "modes": 4, "width": 8, "layers": 2, "coordinates": False, **settings})


def test_learns_scores_predicts_saves(tmp_path: Path) -> None:
    fitted = fit(small(), data(), inputs="a", targets="u", epochs=40, batch_size=6, learning_rate=1e-2, out=tmp_path)
    fresh = data(10, seed=1)
    score = fitted.score(fresh)
    assert score.relative_l2 < 0.1  # reached 0.028; untrained it is 1
    assert score.each_l2.shape == score.each_h1.shape == (10,)
    assert "relative L2" in str(score) and "FNO" in str(fitted)
    predicted = fitted.predict(fresh.drop_vars("u"))
    assert predicted.u.dims == ("sample", "x") and np.array_equal(predicted.x, fresh.x)
    by_hand = np.linalg.norm(predicted.u - fresh.u, axis=1) / np.linalg.norm(fresh.u, axis=1)
    np.testing.assert_allclose(score.each_l2.numpy(), by_hand, rtol=1e-5)
    again = Fit.load(tmp_path)
    assert np.array_equal(again.predict(fresh).u, predicted.u)
    assert again.signature == fitted.signature and again.history == fitted.history and again.config == fitted.config
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == len((tmp_path / "log.csv").read_text().splitlines()) - 1 == 40
    assert min(json.loads(line)["validation"] for line in lines) == fitted.best_error


def test_keeps_the_weights_that_did_best_on_validation() -> None:
    train, held = split(data(), (30, 10), 0)
    settings: dict[str, Any] = {"epochs": 12, "learning_rate": 0.05, "schedule": Constant()}
    fitted = fit(small(), train, inputs="a", targets="u", validate=held, **settings)
    errors = [row["validation"] for row in fitted.history]
    assert fitted.best_error == min(errors) and errors[fitted.best_epoch - 1] == min(errors)
    assert fitted.score(held).relative_l2 == pytest.approx(min(errors), rel=1e-5)  # float32 sums in another order
    assert errors[-1] != min(errors)  # so that keeping the last weights instead would have been seen


def test_global_generator_is_untouched_and_runs_repeat() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.drop = small(), nn.Dropout(0.2)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.drop(x))

    before = torch.get_rng_state()
    runs = [fit(Dropped(), data(), inputs="a", targets="u", epochs=2, progress=p) for p in (False, True)]
    assert torch.equal(before, torch.get_rng_state())
    assert [row["loss"] for row in runs[0].history] == [row["loss"] for row in runs[1].history]
    other = fit(Dropped(), data(), inputs="a", targets="u", epochs=2, seed=1)
    assert other.history[0]["loss"] != runs[0].history[0]["loss"]


def test_announces_what_it_will_cost(capsys: pytest.CaptureFixture[str]) -> None:
    network = small()
    count = sum(p.numel() for p in network.parameters())
    fit(network, data(), inputs="a", targets="u", epochs=1, progress=True)
    text = capsys.readouterr().err
    assert f"{count:,} real parameters" in text and "36 members to train, 4 to validate" in text and "MiB" in text
    fit(small(), data(), inputs="a", targets="u", epochs=1, progress=False)
    assert capsys.readouterr().err == ""


def test_several_inputs_and_a_module_of_ones_own(tmp_path: Path) -> None:
    network = nn.Conv1d(2, 1, 5, padding=2, padding_mode="circular")
    fitted = fit(network, data(), inputs=("a", "b"), targets="u", epochs=2, out=tmp_path)
    assert fitted.predict(data()).u.shape == (40, 24)
    with pytest.raises(InputError, match=r"network=Conv1d"):
        Fit.load(tmp_path)
    with pytest.raises(InputError, match="another network: 'weight' is"):
        Fit.load(tmp_path, nn.Conv1d(2, 1, 3))
    twin = Fit.load(tmp_path, nn.Conv1d(2, 1, 5, padding=2, padding_mode="circular"))
    assert np.array_equal(twin.predict(data()).u, fitted.predict(data()).u)


def test_windows_stay_on_one_side() -> None:
    movie = np.random.default_rng(0).normal(size=(5, 6, 16)).cumsum(axis=1)
    array = xarray.DataArray(movie, dims=("sample", "time", "x"), name="u")
    fitted = fit(small(), windows(array, history=1, horizon=1), epochs=1)
    assert fitted.config["training members"] == 20 and fitted.config["validation members"] == 5
    with pytest.raises(InputError, match="Rollout"):
        fitted.predict(array.to_dataset())
    with pytest.raises(InputError, match="1 trajectory"):
        fit(small(), windows(array[:1], history=1, horizon=1), epochs=1)


def test_augmentation_moves_inputs_and_targets_alike() -> None:
    class Shift:
        seen: list[set[str]] = []  # noqa: RUF012

        def apply(self, fields: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
            self.seen.append(set(fields))
            by = int(torch.randint(24, (), generator=generator))
            return {name: field.roll(by, -1) for name, field in fields.items()}

    class Apart(Shift):
        def apply(self, fields: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
            return {name: super(Apart, self).apply({name: f}, generator)[name] for name, f in fields.items()}

    settings: dict[str, Any] = {"inputs": "a", "targets": "u", "epochs": 30, "learning_rate": 1e-2}
    alike = fit(small(), data(), augment=(Shift(),), **settings)
    apart = fit(small(), data(), augment=(Apart(),), **settings)
    assert alike.best_error < 0.2 < 0.7 < apart.best_error
    assert {"a", "u"} in Shift.seen and alike.config["augment"] == [Shift.__qualname__]


def bad_member() -> xarray.Dataset:
    found = data()
    found.a[7, 3] = np.nan
    return found


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = small(out_channels=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize(
    ("network", "found", "settings", "words"),
    [
        (small(), bad_member(), {}, "'a'.*member 7"),
        (small(), data(), {"inputs": "q"}, "'q'"),
        (small(), data(), {"inputs": None}, "inputs="),
        (Wide(), data(), {}, "out_channels"),
        (small(dim=2), data(), {}, "FNO"),
        (nn.Identity(), data(), {}, "nothing to train"),
        (small(), data(), {"epochs": 0}, "epochs 0"),
        (small(), data(1), {}, "1 member"),
        (small(), data(), {"learning_rate": 1e30, "schedule": Constant()}, "learning_rate"),
        (small(), pairs(data(), "a", "u"), {}, "drop|know theirs"),
    ],
)
def test_refuses(network: nn.Module, found: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit(network, found, **{"inputs": "a", "targets": "u", "epochs": 3, **settings})


def test_refuses_data_of_another_kind() -> None:
    fitted = fit(small(), data(), inputs="a", targets="u", epochs=1)
    with pytest.raises(InputError, match="trained for other data.*'u'"):
        fitted.score(pairs(data(), "a", "b"))
    with pytest.raises(InputError, match="no variable 'a'"):
        fitted.predict(data().drop_vars("a"))


def test_refuses_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        Fit.load(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"12345678")
    with pytest.raises(InputError, match="not a whole safetensors"):
        Fit.load(tmp_path)


def test_float64() -> None:
    fitted = fit(small().double(), data(), inputs="a", targets="u", epochs=1)
    assert fitted.dtype == torch.float64 and fitted.predict(data()).u.dtype == np.float64


def test_unnormalised() -> None:
    fitted = fit(small(), data(), inputs="a", targets="u", epochs=1, normalise=False)
    assert torch.equal(fitted.encode.mean, torch.zeros(1, dtype=torch.float64))


def test_losses_by_hand() -> None:
    p, t = torch.randn(2, 3, 2, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    l2 = [((p[i] - t[i]).square().sum() / t[i].square().sum()).sqrt() for i in range(3)]
    torch.testing.assert_close(relative_l2(p, t), torch.stack(l2))
    torch.testing.assert_close(RelativeL2()(p, t), torch.stack(l2).mean())
    e = p - t

    def energy(f: Tensor) -> Tensor:
        return (f.diff(dim=-2) / 0.5).square().sum((1, 2, 3)) + (f.diff(dim=-1) / 0.2).square().sum((1, 2, 3))

    seminorm = (energy(e) / energy(t)).sqrt()
    torch.testing.assert_close(H1(0.3, (0.5, 0.2))(p, t), (torch.stack(l2) + 0.3 * seminorm).mean())
    assert not torch.allclose(H1(0.3, (0.2, 0.5))(p, t), H1(0.3, (0.5, 0.2))(p, t))  # the spacing is used
    whole = (e.square().sum((1, 2, 3)) + energy(e)) / (t.square().sum((1, 2, 3)) + energy(t))
    torch.testing.assert_close(relative_h1(p, t, (0.5, 0.2)), whole.sqrt())
    with pytest.raises(InputError, match="spacing"):
        H1()(p, t)
    with pytest.raises(InputError, match="out_channels"):
        relative_l2(p, t[:, :1])


def test_h1_takes_the_spacing_of_the_data() -> None:
    fitted = fit(small(), data(), inputs="a", targets="u", epochs=1, loss=H1(0.1))
    assert "spacing=(0.041666" in fitted.config["loss"]


def test_schedules_begin_peak_and_end_where_they_say() -> None:
    factors = [OneCycle(warmup=0.25, start=0.1, end=0.01).factor(step, 40) for step in range(40)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9] == 1 and factors[-1] == pytest.approx(0.01)
    assert factors[:10] == sorted(factors[:10]) and factors[9:] == sorted(factors[9:], reverse=True)
    cosine = [Cosine(end=0.1).factor(step, 11) for step in range(11)]
    assert cosine[0] == 1 and cosine[5] == pytest.approx(0.55) and cosine[-1] == pytest.approx(0.1)
    assert OneCycle().factor(0, 1) == 1 and Cosine().factor(0, 1) == 1
    with pytest.raises(InputError, match="warmup"):
        OneCycle(warmup=1)


def test_weight_decay_shrinks() -> None:
    norms = []
    for decay in (0.0, 10.0):
        network = small()
        rule = AdamW(weight_decay=decay)
        fit(network, data(), inputs="a", targets="u", epochs=3, optimizer=rule, schedule=Constant())
        norms.append(sum(float(p.detach().square().sum()) for p in network.parameters()))
    assert norms[1] < 0.9 * norms[0]
