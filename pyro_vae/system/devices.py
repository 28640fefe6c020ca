"""The choice of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device(name: str | None = None) -> torch.device:
    """Returns the device with this name; without a name, the GPU if there is one and else the CPU.

    Raises:
        ValueError: If the device does not exist.
    """
    import torch  # when a device is chosen: the options of commands are parsed without it

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # torch accepts names of devices that do not exist
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device {name!r} does not exist here: {reason}") from error
    return device
