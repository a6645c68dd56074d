"""The result of extraction: one image's keypoints with their scores, reliabilities and descriptors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.errors import InputError

_PER_KEYPOINT = ("keypoints", "scores", "reliability", "descriptors", "covariances", "semantics")
_UNIT_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Features:
    """Keypoints of one image, strongest first (as given where a user chose them).

    Two ``Features`` of different ``method`` are never matched; where it is not known, the width of the descriptors
    decides. Tensors are ordinary ones: they may be changed and take gradients.

    Attributes:
        keypoints: (N, 2) float32, pixels ``x y`` in the original image, pixel centres at integers.
        scores: (N,) float32 in [0, 1], detection score, non-increasing but for keypoints that a user chose.
        reliability: (N,) float32 in [0, 1], predicted probability that a match of this keypoint is right.
        descriptors: (N, D) float32, unit norm.
        global_descriptor: (G,) float32 unit norm, for place recognition; ``G`` is 0 where a method has none.
        image_size: (width, height) of the original image in pixels.
        covariances: (N, 2, 2) float32, of the keypoints' positions, px^2; None where a method predicts none.
        method: name of the features, as ``semkey.load`` was given it; empty where it is not known.
        semantics: (N, C) float32 unit norm, what a backbone sees at the keypoints; None without a ``guide``.

    Raises:
        InputError: shapes do not belong together.

    Example:
        >>> import semkey
        >>> from skimage import data
        >>> features = semkey.load("nano", max_keypoints=300).extract(data.camera())
        >>> features
        Features(nano: 300 keypoints of a 512x512 image, descriptors of width 64)
        >>> features.keypoints.shape, features.numpy().keypoints.dtype
        (torch.Size([300, 2]), dtype('float32'))
        >>> len(features.select(features.reliability.topk(50).indices))
        50
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    reliability: torch.Tensor
    descriptors: torch.Tensor
    global_descriptor: torch.Tensor
    image_size: tuple[int, int]
    covariances: torch.Tensor | None = None
    method: str = ""
    semantics: torch.Tensor | None = None

    def __post_init__(self) -> None:
        count = self.keypoints.shape[0]
        if self.keypoints.shape != (count, 2):
            raise InputError(f"keypoints have shape {tuple(self.keypoints.shape)}, expected (N, 2)")
        if self.scores.shape != (count,) or self.reliability.shape != (count,):
            raise InputError(f"scores and reliability must have shape ({count},)")
        if self.descriptors.ndim != 2 or self.descriptors.shape[0] != count:
            raise InputError(f"descriptors have shape {tuple(self.descriptors.shape)}, expected ({count}, D)")
        if self.covariances is not None and self.covariances.shape != (count, 2, 2):
            raise InputError(f"covariances have shape {tuple(self.covariances.shape)}, expected ({count}, 2, 2)")
        if self.semantics is not None and (self.semantics.ndim != 2 or self.semantics.shape[0] != count):
            raise InputError(f"semantics have shape {tuple(self.semantics.shape)}, expected ({count}, C)")

    def __len__(self) -> int:
        return self.keypoints.shape[0]

    def __repr__(self) -> str:
        width, height = self.image_size
        name = f"{self.method}: " if self.method else ""
        device = "" if self.keypoints.device.type == "cpu" else f", on {self.keypoints.device}"
        return (
            f"Features({name}{len(self)} keypoints of a {width}x{height} image, "
            f"descriptors of width {self.descriptors.shape[1]}{device})"
        )

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Features:
        """The features with ``change`` applied to each tensor."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return replace(
            self, **{name: change(value) for name, value in values.items() if isinstance(value, torch.Tensor)}
        )

    def to(self, device: torch.device | str) -> Features:
        """The same features with every tensor on ``device``.

        Raises:
            InputError: no such device here.
        """
        try:
            return self.map(lambda tensor: tensor.to(device))
        except (RuntimeError, AssertionError) as error:  # the latter: this build of torch has none
            raise InputError(f"features cannot be moved to '{device}': {str(error).splitlines()[0]}") from None

    def numpy(self) -> FeatureArrays:
        """The same as NumPy arrays, copies on the CPU."""
        arrays = {
            entry.name: value.detach().cpu().numpy().copy() if isinstance(value, torch.Tensor) else value
            for entry in fields(self)
            for value in [getattr(self, entry.name)]
        }
        return FeatureArrays(**arrays)

    def select(self, indices: torch.Tensor) -> Features:
        """The features of the keypoints at ``indices`` ((M,) integer or (N,) boolean), in that order.

        Raises:
            InputError: they are no such indices.
        """
        chosen = {name: getattr(self, name) for name in _PER_KEYPOINT}
        try:
            return replace(self, **{name: value[indices] for name, value in chosen.items() if value is not None})
        except (IndexError, TypeError) as error:
            raise InputError(f"cannot select from {len(self)} keypoints: {str(error).splitlines()[0]}") from None

    def check(self, *, size: tuple[int, int] | None = None, max_keypoints: int | None = None) -> None:
        """Check the values, which takes a moment: what an extractor promises, and measurements take for granted.

        Args:
            size: (width, height) of the image in pixels, where it is known.
            max_keypoints: as asked for, where it is known.

        Raises:
            InputError: more features than asked for, values that are not finite, keypoints outside the image, scores
                that increase, descriptors that are not of unit norm, covariances that are none, another image size, or
                tensors that are not float32; the message says which, without naming the method.
        """
        problem = self._problem(size, max_keypoints)
        if problem is not None:
            raise InputError(problem)

    def _problem(self, size: tuple[int, int] | None, max_keypoints: int | None) -> str | None:
        if size is not None and tuple(self.image_size) != size:
            return f"image_size is {tuple(self.image_size)}, the image has {size} (width, height)"
        if max_keypoints is not None and len(self) > max_keypoints:
            return f"{len(self)} keypoints where at most {max_keypoints} were asked for"
        for name in _PER_KEYPOINT:
            tensor = getattr(self, name)
            if tensor is not None and tensor.dtype != torch.float32:
                return f"{name} are {tensor.dtype}, must be float32"
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                return f"{name} hold NaN or infinite values"
        return self._value_problem() if len(self) else None

    def _value_problem(self) -> str | None:
        low, high = self.keypoints.min(dim=0).values, self.keypoints.max(dim=0).values
        limit = self.keypoints.new_tensor(self.image_size) - 0.5
        norms = self.descriptors.norm(dim=1)
        if bool((low < -0.5).any()) or bool((high > limit).any()):
            return f"keypoints from {low.tolist()} to {high.tolist()} leave the image of {tuple(self.image_size)}"
        if bool((self.scores.diff() > 0).any()):
            return "scores increase: the strongest keypoint must come first"
        if float((norms - 1).abs().max()) > _UNIT_NORM_TOLERANCE:
            return f"descriptors have norms from {float(norms.min()):.4f} to {float(norms.max()):.4f}, must have 1"
        if self.covariances is not None and not bool((torch.linalg.eigvalsh(self.covariances) > 0).all()):
            return "covariances must be symmetric with positive eigenvalues"
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureArrays:
    """:class:`Features` as NumPy arrays, which have the same names, shapes and meanings."""

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    reliability: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    global_descriptor: NDArray[np.float32]
    image_size: tuple[int, int]
    covariances: NDArray[np.float32] | None = None
    method: str = ""
    semantics: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    def __repr__(self) -> str:
        width, height = self.image_size
        return f"FeatureArrays({len(self)} keypoints of a {width}x{height} image)"
