"""Which device to compute on."""

from __future__ import annotations

import torch

__all__ = ["choose_device"]


def choose_device(name: str | None = None) -> torch.device:
    """Returns the device of that name; without a name the GPU if there is one, else the CPU.

    Raises:
        ValueError: If there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # a device may be known to torch and not be there
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device {name!r} does not exist here: {reason}") from error
    return device
