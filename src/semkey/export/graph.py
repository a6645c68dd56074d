"""What :mod:`semkey.export.onnx_file` writes: a network in operations that a graph can hold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import nn

#: Free axes of a tensor: number and name, as runtimes show it.
Axes = Mapping[int, str]
BATCH: Axes = {0: "batch"}
IMAGES: Axes = {0: "batch", 2: "height", 3: "width"}


class OnnxGraph(nn.Module):
    """A module that is traced into a file, and what the file says of itself.

    Attributes:
        kind: what the file is, for people.
    """

    kind: str

    @property
    @abstractmethod
    def inputs(self) -> dict[str, Axes]:
        """Names of what it takes, in order, with their free axes."""

    @property
    @abstractmethod
    def outputs(self) -> dict[str, Axes]:
        """Names of what it gives, in order, with their free axes."""

    @property
    def names(self) -> list[str]:
        """Of the outputs, in order."""
        return list(self.outputs)

    @property
    @abstractmethod
    def takes(self) -> str:
        """The inputs in words: shapes, types, ranges."""

    @property
    def compared(self) -> list[str]:
        """The outputs that have to be equal in every row where a runtime computes the same."""
        return self.names

    @abstractmethod
    def examples(self, number: int) -> tuple[torch.Tensor, ...]:
        """Inputs to trace with (0) and to compare results with (1, 2): each of other sizes, the first one a batch."""
