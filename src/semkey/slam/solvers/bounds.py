"""How large a whitened residual may be: points of the chi distribution, by degrees of freedom.

A residual within its 95 % point is an inlier, and a robust kernel with its corner there keeps 95 % of Gaussian
residuals quadratic.
"""

from __future__ import annotations

CHI_95_1 = 1.960
"""95 % point with one degree of freedom: a depth, a distance from a line."""

CHI_95_2 = 2.448
"""95 % point with two: a pixel, the distances of the two ends of a line."""

CHI_99_2 = 3.035
"""99 % point with two: a right observation is rarely outside."""

CHI_95_6 = 3.549
"""95 % point with six: a pose."""

CHI2_95_1 = 3.84
"""95 % point of the square with one, as rounded in ORB-SLAM (Mur-Artal, Montiel and Tardos 2015, equations 2 and 3)."""

CHI2_95_2 = 5.99
"""95 % point of the square with two, as rounded there."""
