"""What all variational autoencoders share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.distributions import as_pyro
from pyro_vae.exporting import ExportError, Program, check_formats, export_programs
from pyro_vae.models.exported import Examples, with_gaps
from pyro_vae.models.parameters import declare_parameters
from pyro_vae.models.parts_fit import check_data, check_particles
from pyro_vae.models.pretrained import Pretrained
from pyro_vae.system.randomness import generators_kept
from pyro_vae.system.threads import in_turn


class LatentVariableModel(Pretrained, PyroModule):
    """A pair of Pyro programs over the rows of x, with one plate ``"data"`` at dim -1 and x observed at site ``"x"``.

    The parameters belong to this module, not to Pyro's global parameter store: two models in one process share no
    parameters, ``load_state_dict`` and ``copy.deepcopy`` do the same as in PyTorch, and a parameter with
    ``requires_grad=False`` stays as it is.

    Args:
        example: A draw of x from the model, ``[1, *event]``: it has the shape, dtype and device of data.
        support: The support of the likelihood.
        parts: Modules, which become attributes.
    """

    prior: nn.Module
    likelihood: nn.Module
    posterior: nn.Module
    _example_x: Tensor

    def __init__(self, example: Tensor, support: Any, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._support = support
        # It follows .to(device) and .to(dtype), and is not saved.
        self.register_buffer("_example_x", example, persistent=False)

    def default_loss(self) -> ELBO:
        """The loss that ``fit`` minimizes unless it is given another one."""
        return Trace_ELBO()

    def draw_prior(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Tensor], Distribution]:
        """Draws latents from the prior; returns them by site, and p(x | z). The arguments are those of ``sample``."""
        raise NotImplementedError

    def codes(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Codes of data by site, ``[n, latent]``: means of the posterior, or draws if it has no mean in closed form.

        The arguments are those of the guide.
        """
        raise NotImplementedError

    @torch.no_grad()
    def sample_means(self, *args: Any, **kwargs: Any) -> Tensor:
        """Means of p(x | z) at draws of z from the prior, ``[n, *event]``: samples without the noise of the likelihood.

        The arguments are those of ``sample``.
        """
        return self.draw_prior(*args, **kwargs)[1].mean

    @torch.no_grad()
    def check(self, x: Tensor) -> None:
        """Checks that x ``[n, *event]`` is valid data for the model; cheap, and draws no random numbers.

        Raises:
            TypeError: If x is not a tensor or its dtype is not that of draws from the likelihood.
            ValueError: If x is empty, misshapen, on another device, or outside the support of the likelihood (NaN is
                in the support only of likelihoods for missing values).
        """
        check_data(x, self._example_x, self._support)

    def check_conditions(self, y: Any, n: int) -> None:
        """Checks the conditions y of n datapoints, in models that have conditions."""

    def export(
        self,
        folder: str | Path,
        formats: Sequence[str] = ("onnx", "torch"),
        *,
        notes: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Writes the parts as files that run without this library: ``encoder``, ``decoder`` and ``log_likelihood``.

        ONNX files (``.onnx``) run without torch; ``.pt2`` files are loaded by ``torch.export.load``. They compute what
        the model does in evaluation mode, on any number of rows. ``export.json`` beside them has the names, shapes and
        dtypes of inputs and outputs. Each file is run and compared with the model before it is kept. The files do not
        check data.

        Args:
            folder: Where to write. Files of an older export are replaced.
            formats: ``"onnx"``, ``"torch"``, or both.
            notes: What else ``export.json`` says, as JSON values.

        Returns:
            The content of ``export.json``.

        Raises:
            ExportError: If a part cannot be exported; then nothing is written.
            ImportError: If the packages for ONNX are not installed.
            ValueError: If a format is unknown.
            OSError: If the files cannot be written.
        """
        check_formats(formats)
        mine = deepcopy(self).cpu().eval()
        with in_turn(), pyro.validation_enabled(False), generators_kept(torch.device("cpu")), torch.no_grad():
            return export_programs(
                mine._export_programs(), folder, formats, {"model": type(self).__name__} | (notes or {})
            )

    def _export_programs(self) -> list[Program]:
        """What :meth:`export` exports."""
        raise ExportError(f"a {type(self).__name__} does not say what its parts are, and cannot be exported")

    def _examples(self, *sample_arguments: Any) -> Examples:
        """Draws of x and of the latents, by name, for both numbers of rows that an export is tried with.

        Args:
            sample_arguments: The argument of ``sample``, for each number of rows.
        """
        few, one = (
            {"x": with_gaps(p_x.sample(), self._support), **latents}
            for latents, p_x in map(self.draw_prior, sample_arguments)
        )
        return few, one

    def data_of(self, x: Tensor, observations: Mapping[str, Tensor] | None) -> Tensor:
        """The data that a guide conditions on: x, or in the sleep phase of ``ReweightedWakeSleep`` draws of the model.

        Args:
            x: Data, ``[n, *event]``.
            observations: Draws from the model by observed site, of which ``"x"`` is ``[*particles, n, *event]``.
        """
        return (observations or {}).get("x", x)

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one datapoint, ``[*event]``."""
        return self._example_x.shape[1:]

    @property
    def event_dtype(self) -> torch.dtype:
        """The dtype of data."""
        return self._example_x.dtype

    @contextmanager
    def _data_plate(self, parts: Sequence[nn.Module], x: Tensor, y: Tensor | None = None) -> Iterator[None]:
        """The plate over datapoints in which a program has its sites. Data are checked, and parameters declared, first.

        Args:
            parts: The parts that the program runs.
            x: Data, ``[n, *event]``.
            y: Conditions of the datapoints, if there are any.
        """
        if is_validation_enabled():
            self.check(x)
            self.check_conditions(y, x.shape[0])
        declare_parameters(self, *parts)
        with pyro.plate("data", x.shape[0], dim=-1):
            yield

    def _observe(self, x: Tensor, z: Tensor) -> Tensor:
        """Observes x under ``likelihood(z)``, z being latents with any conditions; returns x."""
        check_particles("likelihood(z)", self.likelihood, z)
        return pyro.sample("x", as_pyro(self.likelihood(z)), obs=x)

    def __getstate__(self) -> dict[str, Any]:
        # Pyro hangs a weak reference on every parameter it has seen, and those cannot be pickled.
        for parameter in self.parameters():
            parameter.__dict__.pop("unconstrained", None)
        return self.__dict__.copy()
