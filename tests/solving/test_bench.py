"""`sciml.bench`: rows of solvers whose error and cost are known, faults that stay in their row, resumption, files."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import sciml
from sciml.core import Linear, Matrix
from sciml.core.bench import Bench
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Solver
from sciml.domains import InputError
from sciml.learned import Rollout, Trained
from sciml.priors import TotalVariation
from sciml.solvers import (
    Calibrated,
    Chained,
    ConjugateGradient,
    Direct,
    DirectTransform,
    Discrepancy,
    FilteredBackprojection,
    Multigrid,
    PlugAndPlay,
    PrimalDual,
)
from sciml.solving import bench_contenders, bench_measure
from sciml.solving.advise import solvers

N = 7


def small(batch: int = 3, known: bool = True) -> Linear:
    """A diagonal problem with a known solution, or the same without."""
    exact = 1 + torch.arange(batch * N, dtype=torch.float64).reshape(batch, 1, N)
    matrix = Matrix(torch.diag(2.0 + torch.arange(N, dtype=torch.float64)))
    return Linear("small", matrix, matrix(exact), exact=exact if known else None)


@dataclass(frozen=True, eq=False)
class Known(Solver):
    """The answer times one plus ``error``, after ``pause`` seconds."""

    error: float = 0.0
    pause: float = 0.0
    ran: list[str] = field(default_factory=list)
    applications: int = 0

    def accepts(self, problem: Any) -> str | None:
        return None

    def run(self, problem: Any, start: Tensor | None, context: Context) -> Answer:
        self.ran.append("ran")
        time.sleep(self.pause)
        for _ in range(self.applications):
            problem.operator(problem.source)
        value = problem.source / torch.diagonal(
            problem.operator.dense()[0] if problem.operator.dense().ndim == 3 else problem.operator.dense()
        )
        return Answer(value * (1 + self.error), torch.full((problem.batch,), int(Code.CONVERGED)), steps=1)


@dataclass(frozen=True, eq=False)
class Raising(Known):
    """Does not get there."""

    def run(self, problem: Any, start: Tensor | None, context: Context) -> Answer:
        raise RuntimeError("out of luck\nand more lines")


@dataclass(frozen=True, eq=False)
class Killed(Known):
    """The first time, the whole program is."""

    def run(self, problem: Any, start: Tensor | None, context: Context) -> Answer:
        if not self.ran:
            self.ran.append("killed")
            raise KeyboardInterrupt
        return super().run(problem, start, context)


@dataclass(frozen=True, eq=False)
class Refusing(Known):
    """Takes nothing."""

    def accepts(self, problem: Any) -> str | None:
        return "it takes nothing"


@dataclass(frozen=True, eq=False)
class TooProud(Known):
    """Does not even say no."""

    def accepts(self, problem: Any) -> str | None:
        raise ZeroDivisionError("nobody")


@dataclass(frozen=True, eq=False)
class Endless(Known):
    """Never ends, and swallows every Exception."""

    def run(self, problem: Any, start: Tensor | None, context: Context) -> Answer:
        while True:
            try:
                time.sleep(0.01)
                if context.progress is not None:
                    context.progress(3, 10, 0.5)
            except Exception:  # noqa: S110
                pass


@dataclass(frozen=True, eq=False)
class Warming(Known):
    """Slow the first time in the process."""

    seen: ClassVar[list[int]] = []

    def run(self, problem: Any, start: Tensor | None, context: Context) -> Answer:
        if not self.seen:
            self.seen.append(1)
            time.sleep(0.5)
        return super().run(problem, start, context)


def test_errors_and_costs_are_those_of_the_solvers() -> None:
    found = sciml.bench(
        small(), {"fast": Known(1e-3), "slow": Known(1e-6, pause=0.3), "wrong": Known(float("nan"))}, repeats=2
    )
    fast, slow, wrong = found.rows
    # (1 + e) u is off by exactly e, up to rounding.
    assert fast.error == pytest.approx([1e-3] * 3, rel=1e-10) and slow.error == pytest.approx([1e-6] * 3, rel=1e-6)
    assert wrong.error == (None, None, None) and wrong.mean_error is None
    assert [row.name for row in found.rows] == ["fast", "slow", "wrong"]
    assert slow.seconds is not None and fast.seconds is not None and slow.seconds > 0.3 > fast.seconds
    assert slow.busy is not None and slow.busy < 0.1  # sleeping costs the wall, not the processor
    assert all(len(row.warm) == 2 for row in found.rows)
    assert {row.outcome for row in found.rows} == {"UNCERTIFIED"}  # the problem judges, not the claim
    assert sciml.bench(small(), [Known()], repeats=0).rows[0].outcome == "CONVERGED"
    assert found.facts["reference"] == "the exact solution" and found.facts["members"] == 3


def test_cold_is_the_first_run_and_what_was_warm_is_said() -> None:
    Warming.seen.clear()
    first, second = sciml.bench(small(), [Warming(), Warming(1e-3)], repeats=2).rows
    assert first.cold is not None and first.cold[0] > 0.5 > max(wall for wall, _ in first.warm)
    assert not first.met and second.met == ("Warming",)
    assert second.name == "Warming(error=0.001)"


def test_a_solver_that_raises_is_a_row(recwarn: Any) -> None:
    found = sciml.bench(small(), [Raising(), Refusing(), Known()], repeats=1)
    assert [(row.name, row.outcome) for row in found.rows] == [("Raising", "RAISED"), ("Known", "CONVERGED")]
    assert found.rows[0].sentence == "RuntimeError: out of luck"
    assert [(one.name, one.reason) for one in found.refused] == [("Refusing", "it takes nothing")]
    assert "out of luck" in str(found)
    with pytest.raises(InputError, match="no row 'Refusing'"):
        found.row("Refusing")


def test_the_time_limit_ends_a_solver_not_the_bench() -> None:
    begin = time.perf_counter()
    late, after = sciml.bench(small(), [Endless(), Known()], seconds=1.0, repeats=1).rows
    assert time.perf_counter() - begin < 20
    assert late.outcome == "TIME LIMIT" and late.sentence == "not done after 1 s (step 3 of 10, monitored 5.0e-01)"
    assert after.outcome == "CONVERGED"
    # Repeats stop before they would exceed the limit; the cold run counts.
    (row,) = sciml.bench(small(), [Known(pause=0.12)], seconds=0.4, repeats=50).rows
    assert len(row.warm) <= 3


def test_an_alarm_of_somebody_else_is_kept() -> None:
    import signal

    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 50.0)
        with bench_measure.limited(60.0):
            pass
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left <= 50.0
        signal.raise_signal(signal.SIGALRM)
        assert heard == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_an_answer_of_another_shape_is_a_row() -> None:
    @dataclass(frozen=True, eq=False)
    class Crooked(Known):
        def run(self, problem: Any, start: Tensor | None, context: Context) -> Answer:
            return Answer(torch.zeros(2, 5), torch.ones(2, dtype=torch.int64))

    crooked, after = sciml.bench(small(), [Crooked(), Known()], repeats=0).rows
    assert crooked.outcome == "RAISED" and "the answer has shape (1, 2, 5)" in crooked.sentence and after.passed


def test_the_time_limit_holds_beside_the_main_thread() -> None:
    import threading

    rows: list[Any] = []
    worker = threading.Thread(target=lambda: rows.extend(sciml.bench(small(), [Endless()], seconds=0.2).rows))
    worker.start()
    worker.join(10)
    assert [row.outcome for row in rows] == ["TIME LIMIT"]


def test_killed_and_resumed_is_the_same_table(tmp_path: Path) -> None:
    parts = {"one": Known(1e-3), "two": Killed(1e-4), "three": Known(1e-5)}
    with pytest.raises(KeyboardInterrupt):
        sciml.bench(small(), parts, out=tmp_path, repeats=1)
    kept = Bench.load(tmp_path / "bench.json")
    assert [row.name for row in kept.rows] == ["one"]
    count = len(parts["one"].ran)
    resumed = sciml.bench(small(), parts, out=tmp_path, repeats=1)
    assert len(parts["one"].ran) == count  # what was done is not done again
    assert resumed.rows[0] == kept.rows[0]
    assert [row.session for row in resumed.rows] == [1, 2, 2]
    whole = sciml.bench(small(), parts, repeats=1)

    def lasting(bench: Bench) -> list[Any]:
        return [(row.name, row.outcome, row.error, row.checks, row.codes, row.calls, row.steps) for row in bench.rows]

    assert lasting(resumed) == lasting(whole)
    again = sciml.bench(small(), parts, out=tmp_path, repeats=1)
    assert again.to_json() == Bench.load(tmp_path / "bench.json").to_json()
    for changed in (
        lambda: sciml.bench(small(2), parts, out=tmp_path, repeats=1),
        lambda: sciml.bench(small(), {"one": Known()}, out=tmp_path, repeats=1),
        lambda: sciml.bench(small(), parts, out=tmp_path, repeats=2),
        lambda: sciml.bench(small(), {**parts, "three": Known(1e-6)}, out=tmp_path, repeats=1),
        lambda: sciml.bench(small().with_target(discrete=1e-3), parts, out=tmp_path, repeats=1),
    ):
        with pytest.raises(InputError, match="give another folder"):
            changed()


def test_json_and_csv(tmp_path: Path) -> None:
    found = sciml.bench(small(), [Known(float("inf")), Known(1e-3), Raising(), Refusing()], repeats=2)
    text = json.dumps(found.to_json(), allow_nan=False)
    again = Bench.from_json(json.loads(text))
    assert again.rows == found.rows and again.refused == found.refused and again.to_json() == found.to_json()
    assert str(again) == str(found)
    found.save(tmp_path / "bench.json")
    assert Bench.load(tmp_path / "bench.json").rows == found.rows
    lines = found.save(tmp_path / "bench.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[4].startswith("Refusing,REFUSED")
    for bad in (
        {},
        {"format": "other", "rows": []},
        [],
        {"format": "sciml bench 1", "rows": [{"who": 1}], "facts": {}, "refused": []},
    ):
        with pytest.raises(InputError, match="holds no bench"):
            Bench.from_json(bad)
    with pytest.raises(InputError, match=r"\.json or \.csv"):
        found.save(tmp_path / "bench.txt")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sciml.bench(small(), []), "the list of solvers is empty"),
        (lambda: sciml.bench(small(), Known()), r"write \[Known\(...\)\]"),
        (lambda: sciml.bench(small(), [Known]), r"write Known\(\)"),
        (lambda: sciml.bench(small(), [Refusing()]), "no solver accepts 'small' .*it takes nothing"),
        (lambda: sciml.bench("poisson"), "takes a problem, not str"),
        (lambda: sciml.bench(small(), [Known()], seconds=0), "the others are positive"),
        (lambda: sciml.bench(small(), [Known()], weights=["no-such"]), "no-such"),
        (lambda: sciml.bench(small(), [Known()], reference=torch.ones(1, 1, 2)), "the reference has shape"),
    ],
)
def test_bad_input_is_one_sentence(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_a_reference_is_computed_where_none_is_known() -> None:
    found = sciml.bench(small(known=False), [Known(1e-3), Direct()], repeats=0)
    # The tight answer comes from Known(1e-3) only if the problem certified that one; it does not.
    assert found.facts["reference"].startswith("Direct in double precision")
    assert found.row("Known(error=0.001)").error == pytest.approx([1e-3] * 3, rel=1e-9)
    assert found.row("Direct").met == ("Direct",)  # it made the reference before it was timed, and that is said
    none = sciml.bench(small(known=False), [Known(1e-3)], repeats=0)
    assert none.rows[0].error == () and none.facts["reference"] == "nothing: no solver reached the target"
    assert none.plot() is not None  # the certificate stands in for the error


def test_an_evolution_is_measured_against_its_referee() -> None:
    burgers = sciml.problem("burgers", n=32, viscosity=0.1, batch=2, times=[0.0, 0.1])
    found = sciml.bench(burgers, [sciml.solvers.ExponentialRungeKutta()], repeats=0)
    assert "referee Collocation" in found.facts["reference"]
    assert found.rows[0].passed and max(found.rows[0].error) < 1e-6  # the target of the gate


def test_calls_and_memory_are_counted() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.inner(x))

    network = Deep()

    @dataclass(frozen=True, eq=False)
    class Busy(Known):
        megabytes: int = 0

        def run(self, problem: Any, start: Tensor | None, context: Context) -> Answer:
            for _ in range(3):
                network(torch.zeros(1, 2))
            torch.ones(self.megabytes * 131072, dtype=torch.float64).sum()
            return super().run(problem, start, context)

    plain, much = sciml.bench(small(), [Busy(applications=5), Busy(megabytes=64)], repeats=0).rows
    assert plain.calls["network"] == 3  # the parts of a network are no networks
    assert plain.calls["operator"] - much.calls.get("operator", 0) == 5
    if plain.memory is not None and much.memory is not None:
        assert much.memory > 60e6 > 30e6 > plain.memory


def test_threads_are_set_and_put_back() -> None:
    before, seen = torch.get_num_threads(), []

    @dataclass(frozen=True, eq=False)
    class Looking(Known):
        def run(self, problem: Any, start: Tensor | None, context: Context) -> Answer:
            seen.append(torch.get_num_threads())
            return super().run(problem, start, context)

    sciml.bench(small(), [Looking()], repeats=0, threads=before + 1)
    assert set(seen) == {before + 1} and torch.get_num_threads() == before


def test_everyone_who_accepts_is_asked_and_the_others_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [Calibrated, Chained, ConjugateGradient, Direct, DirectTransform, Multigrid, Rollout, Trained, TooProud]
    monkeypatch.setattr(bench_contenders, "solvers", lambda: kinds)  # those of the package take longer
    darcy = sciml.problem("darcy", n=9, batch=2)
    found = sciml.bench(darcy, weights=["fno-darcy"], repeats=0, seconds=20)
    chain = "Chained(Trained(fno-darcy), ConjugateGradient(Multigrid, max_steps=200))"
    # The recomparts one comes first.
    classical = ["ConjugateGradient(Multigrid, max_steps=200)", "ConjugateGradient", "Direct", "Multigrid"]
    assert [row.name for row in found.rows] == [*classical, "Trained(fno-darcy)", chain]
    assert all(found.row(name).passed for name in (*classical, chain))
    reasons = {one.name: one.reason for one in found.refused}
    assert set(reasons) == {"Calibrated", "DirectTransform", "TooProud"}
    assert "coefficient" in reasons["DirectTransform"] and "it needs inner and record" in reasons["Calibrated"]
    assert reasons["TooProud"] == "accepts() raised ZeroDivisionError: nobody"
    learned = found.row("Trained(fno-darcy)")
    assert learned.training["seconds"] == 186 and learned.training["weights"] == "fno-darcy"
    assert learned.calls["network"] == 1 and learned.outcome == "UNCERTIFIED"


def test_every_solver_of_the_package_is_a_contender_or_refused() -> None:
    for name, size in (("poisson", 9), ("heat", 9), ("bratu", 9), ("deblur", 16)):
        posed = sciml.problem(name, n=size)
        asked, refused = bench_contenders.contenders(posed, None, ())
        names = " ".join([one.name for one in asked] + [one.name for one in refused])
        by_hand = {"Chained", "Discrepancy", "Trained", "Rollout"}
        missing = {kind.__name__ for kind in solvers()} - by_hand
        assert not [kind for kind in missing if kind not in names]
        assert all(one.reason and "\n" not in one.reason for one in refused)
        assert asked[0].name == bench_contenders.label(posed.recommend(posed))


def test_weights_are_not_used_where_they_are_refused() -> None:
    poisson = sciml.problem("poisson", n=9)
    found = sciml.bench(poisson, [Multigrid()], weights=["fno-darcy", "lpn-ellipses"], repeats=0)
    assert [row.name for row in found.rows] == ["Multigrid"]
    reasons = {one.name: one.reason for one in found.refused}
    assert "coefficient" in reasons["Trained(fno-darcy)"] and "no inverse problem" in reasons["lpn-ellipses"]


def test_a_prior_goes_with_a_solver() -> None:
    deblur = sciml.problem("deblur", n=16)
    pairs = {"mine": PlugAndPlay(max_steps=2), "shipped": (PlugAndPlay(max_steps=2), "denoiser-patches")}
    found = sciml.bench(deblur, pairs, repeats=0)
    assert [row.name for row in found.rows] == ["shipped"] and found.rows[0].calls["network"] == 2
    assert found.rows[0].training["seconds"] == 1857 and found.facts["reference"] == "the truth"
    assert [one.name for one in found.refused] == ["mine"] and "does not denoise" in found.refused[0].reason
    two = [(Discrepancy(PrimalDual(max_steps=2), rounds=1), TotalVariation()), FilteredBackprojection()]
    (row,) = sciml.bench(deblur, two, repeats=0).rows
    assert row.name == "Discrepancy(PrimalDual(max_steps=2), rounds=1), TotalVariation"
    # Without a weight of the prior the solver cannot be asked; inside Discrepancy it can.
    (found,) = bench_contenders.contenders(deblur, [(PrimalDual(), TotalVariation())], None)[0]
    assert found.name == "Discrepancy(PrimalDual), TotalVariation"
    (found,) = bench_contenders.contenders(dataclasses.replace(deblur, weight=1.0), [PrimalDual()], None)[0]
    assert found.name == "PrimalDual"
    refused = sciml.bench(small(), [Known(), (Known(), TotalVariation())], repeats=0).refused
    assert "no inverse problem" in refused[0].reason


def test_picture_and_page(tmp_path: Path) -> None:
    found = sciml.bench(small(), {"a": Known(1e-3), "b<i>": Known(0.0), "c": Raising()}, repeats=1)
    found.plot(tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 5000
    page = found.report(tmp_path / "bench.html").read_text()
    assert "out of luck" in page and "b&lt;i&gt;" in page and "data:image/png" in page
    assert found.markdown().count("\n") == 4
    with pytest.raises(InputError, match="no rows"):
        Bench((), (), {}).plot()


def test_progress_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    sciml.bench(small(), [Known(), ConjugateGradient()], repeats=0, progress=lambda *words: told.append(words))
    assert told[0] == (0, 2, "Known") and told[-1] == (2, 2, "ConjugateGradient: CONVERGED")
