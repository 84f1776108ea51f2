"""Where the weights of a new layer lie, and of which type: the two options that every layer of PyTorch has as well."""

from __future__ import annotations

from typing import TypedDict

import torch  # noqa: TC002 -- read by whoever resolves the annotations


class FactoryOptions(TypedDict, total=False):
    """What PyTorch calls the factory arguments of a layer."""

    device: torch.device | str | None
    """Where the weights lie; PyTorch's default device if it is left out or None."""
    dtype: torch.dtype | None
    """Their type; PyTorch's default type if it is left out or None."""


def factory_options(options: FactoryOptions) -> FactoryOptions:
    """These two of the options of a layer that has more."""
    return {"device": options.get("device"), "dtype": options.get("dtype")}
