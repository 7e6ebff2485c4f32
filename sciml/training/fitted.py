"""A trained network together with everything needed to use it: `Fit`, and its `Score`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.files import load_tensors, save_tensors
from sciml.training._members import Members
from sciml.training._state import load_weights, weights
from sciml.training.losses import relative_h1, relative_l2
from sciml.training.samples import Normaliser, Samples, Signature, pairs

if TYPE_CHECKING:
    import xarray

__all__ = ["Fit", "Samples", "Score", "as_samples", "mean_relative_l2"]

FORMAT = "sciml fit 1"


def as_samples(
    data: Any, inputs: str | Sequence[str] | None, targets: str | Sequence[str] | None, dtype: torch.dtype
) -> Samples:
    """A Dataset with names becomes Samples; Samples pass."""
    if isinstance(data, Samples):
        if inputs is not None or targets is not None:
            raise InputError("fit: inputs= and targets= name variables of a Dataset; these samples know theirs.")
        return data
    if inputs is None or targets is None:
        known = ", ".join(map(str, getattr(data, "data_vars", ()))) or type(data).__name__
        raise InputError(f"fit: name the variables with inputs= and targets=; the data has {known}.")
    return pairs(data, inputs, targets, dtype=dtype)


@dataclass(frozen=True)
class Score:
    """How well a network predicts a set of members: errors per member, and their means.

    ``relative_l2`` is ``|u - v| / |v|`` and ``relative_h1`` the same with gradients added to both norms, on fields in
    physical units; ``each_l2`` and ``each_h1`` hold one number per member.
    """

    each_l2: Tensor
    each_h1: Tensor

    @property
    def relative_l2(self) -> float:
        return float(self.each_l2.mean())

    @property
    def relative_h1(self) -> float:
        return float(self.each_h1.mean())

    def __str__(self) -> str:
        return (
            f"relative L2 {self.relative_l2:.4g} (median {float(self.each_l2.median()):.4g}, worst "
            f"{float(self.each_l2.max()):.4g}), relative H1 {self.relative_h1:.4g}, {len(self.each_l2)} members"
        )


class Fit:
    """A network with the weights that did best on validation members, and what it was trained for.

    - ``network``; ``signature`` (names, channels, grid of inputs and targets); ``encode`` and ``decode``, the
      normalisers of inputs and targets; ``history``, one row per epoch; ``best_epoch`` and ``best_error``
      (validation); ``config``, the settings of the run; ``recipe`` of the data, if it had one.
    """

    def __init__(
        self, network: nn.Module, signature: Signature, encode: Normaliser, decode: Normaliser,
        history: list[dict[str, Any]],
    ) -> None:  # fmt: skip
        self.network, self.signature, self.encode, self.decode = network, signature, encode, decode
        self.history = history
        self.best_epoch, self.best_error = 0, float("inf")
        self.config: dict[str, Any] = {}
        self.recipe: Any = None

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.network.parameters() if p.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    def apply(self, fields: Tensor, network: nn.Module | None = None) -> Tensor:
        """Inputs in physical units (batch, C, *space) to targets in physical units, in the network's dtype."""
        x = self.encode.encode(fields.to(self.device, self.dtype))
        return self.decode.decode((network or self.network)(x))

    def __str__(self) -> str:
        return (
            f"{type(self.network).__name__}: {', '.join(self.signature.inputs)} -> "
            f"{', '.join(self.signature.targets)}, best of {len(self.history)} epochs at epoch {self.best_epoch}, "
            f"validation relative L2 {self.best_error:.4g}"
        )

    def score(self, data: Any, *, batch_size: int = 50) -> Score:
        """Errors on members with known targets: a Dataset with this fit's variables, or Samples.

        Raises:
            InputError: the data is of another kind than the training data, or not finite.
        """
        named = not isinstance(data, Samples)
        samples = as_samples(
            data, self.signature.inputs if named else None, self.signature.targets if named else None, self.dtype
        )
        self.refuse(samples.signature)
        l2, h1 = [], []
        for start in range(0, len(samples), batch_size):
            a, u = samples.batch(range(start, min(start + batch_size, len(samples))))
            prediction = self.evaluate(a).double().cpu()
            l2.append(relative_l2(prediction, u.double()))
            h1.append(relative_h1(prediction, u.double(), tuple(samples.spacing)))
        return Score(torch.cat(l2), torch.cat(h1))

    def evaluate(self, fields: Tensor) -> Tensor:
        """`apply` without gradients and in evaluation mode, whatever mode the network is in."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                return self.apply(fields)
        finally:
            self.network.train(training)

    def refuse(self, signature: Signature) -> None:
        """Raise InputError if data of this signature is not what the network was trained for."""
        reason = self.signature.mismatch(signature)
        if reason:
            raise InputError(f"this {type(self.network).__name__} was trained for other data: {reason}")

    def predict(self, data: xarray.Dataset, *, batch_size: int = 50) -> xarray.Dataset:
        """The target variables, with the data's coordinates, for a Dataset that holds the input variables.

        Raises:
            InputError: variables are missing, the data is of another kind than the training data, or the network
                steps in time (then `Rollout` is the way to use it).
        """
        import xarray

        if self.signature.history:
            raise InputError("this network maps frames to the next frames; use sciml.learned.Rollout(fit) to predict.")
        samples = pairs(data, self.signature.inputs, (), dtype=self.dtype)
        self.refuse(samples.signature)
        parts = []
        for start in range(0, len(samples), batch_size):
            a, _ = samples.batch(range(start, min(start + batch_size, len(samples))))
            parts.append(self.evaluate(a).cpu())
        whole = torch.cat(parts)
        space = samples.signature.dims
        found: dict[str, Any] = {}
        first = 0
        for name in self.signature.targets:
            count = self.signature.channels.get(name, 1)
            field = whole[:, first : first + count]
            dims = ("sample", "channel", *space) if count > 1 else ("sample", *space)
            found[name] = (dims, (field if count > 1 else field[:, 0]).numpy())
            first += count
        coords = {axis: data.coords[axis] for axis in ("sample", *space) if axis in data.coords}
        attrs = {"made by": str(self), **{name: data.attrs[name] for name in ("grid",) if name in data.attrs}}
        return xarray.Dataset(found, coords=coords, attrs=attrs)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``folder/checkpoint.safetensors``, whole or not at all."""
        head = {
            "format": FORMAT,
            "network": type(self.network).__name__,
            "settings": getattr(self.network, "settings", None),
            "signature": self.signature.state(),
            "encode": self.encode.state(),
            "decode": self.decode.state(),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_error": self.best_error,
            "config": self.config,
            "recipe": self.recipe,
        }
        path = Path(folder) / "checkpoint.safetensors"
        save_tensors(path, weights(self.network), {"sciml": json.dumps(head)})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], network: nn.Module | None = None) -> Fit:
        """Read what `save` wrote: a folder, or the file in it.

        Networks of `sciml.networks` are rebuilt from their settings; for a module of your own pass one of the same
        shape as ``network``.

        Raises:
            InputError: nothing there, a damaged file, or the checkpoint of another network.
        """
        path = Path(folder)
        if path.is_dir():
            path = path / "checkpoint.safetensors"
        saved, words = load_tensors(path)
        head = json.loads(words.get("sciml", "{}"))
        if head.get("format") != FORMAT:
            raise InputError(f"'{path}' is not a checkpoint of `sciml.fit`; give the folder passed to it as out=.")
        if network is None:
            import sciml.networks

            kind = getattr(sciml.networks, head["network"], None)
            if head["settings"] is None or kind is None:
                raise InputError(
                    f"'{path}' holds the weights of {head['network']}, which is not in sciml.networks; "
                    f"pass Fit.load(..., network={head['network']}(...))."
                )
            network = cast(nn.Module, kind(**head["settings"]))
        load_weights(network, saved, f"'{path}'")
        network.eval()
        made = cls(
            network, Signature.restore(head["signature"]), Normaliser.restore(head["encode"]),
            Normaliser.restore(head["decode"]), head["history"],
        )  # fmt: skip
        made.best_epoch, made.best_error = head["best_epoch"], head["best_error"]
        made.config, made.recipe = head["config"], head["recipe"]
        return made


def mean_relative_l2(fitted: Fit, members: Members, batch_size: int) -> float:
    """Mean relative L2 error of the network as it is now."""
    total = 0.0
    for a, u in members.batches(batch_size):
        prediction = fitted.evaluate(a)
        total += float(relative_l2(prediction, u.to(prediction)).sum(dtype=torch.float64))
    return total / len(members)
