"""Is an image like those of training? A distance in embedding space, and a threshold with a known rate."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

_ROOM = 1 + 1e-4
"""Above the distance that is the threshold: another batch size or runtime changes the last digits of that image."""
_VARIANCE, _MAX_DIRECTIONS = 0.95, 64
"""Share of the variance that the kept directions hold, and their largest number; the others count as noise."""


@dataclass(frozen=True)
class Novelty:
    """Distance of embeddings from the training images, and the distance above which they are novel.

    Attributes:
        mean: shape ``(D,)``.
        components: orthonormal directions, shape ``(K, D)``.
        variances: of the training images along them, shape ``(K,)``.
        noise: variance along every other direction.
        threshold: distances above it are novel.
        false_alarm: largest expected share of images like the held-out ones that are called novel.
        n: held-out images behind the threshold.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    noise: float
    threshold: float
    false_alarm: float
    n: int

    def check(self) -> None:
        """Raise `ValueError` if the values are impossible, before distances from a file are used."""
        if self.mean.ndim != 1 or self.components.shape != (len(self.variances), len(self.mean)):
            raise ValueError(
                f"the mean {self.mean.shape}, components {self.components.shape} and variances "
                f"{self.variances.shape} do not go together"
            )
        arrays = (self.mean, self.components, self.variances)
        if not all(np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all() for array in arrays):
            raise ValueError("the mean, the components or the variances are not finite numbers")
        if not ((self.variances > 0).all() and 0 < self.noise < math.inf):
            raise ValueError("the variances and the noise must be greater than 0")
        if not (0 <= self.threshold < math.inf and 0 < self.false_alarm <= 1 and self.n >= 1):
            raise ValueError(
                f"a threshold of {self.threshold} with a false alarm rate of {self.false_alarm} on {self.n} images "
                "is impossible"
            )

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance ``(N,)`` under probabilistic PCA, per direction: about 1 for a training image."""
        centered = np.asarray(features, dtype=np.float64) - self.mean
        along = centered @ self.components.T
        rest = np.maximum((centered**2).sum(1) - (along**2).sum(1), 0)
        return np.sqrt(((along**2 / self.variances).sum(1) + rest / self.noise) / len(self.mean))

    def is_novel(self, features: np.ndarray) -> np.ndarray:
        """Which embeddings are further away than the threshold; shape ``(N,)``."""
        return self.distance(features) > self.threshold


def fit_novelty(features: np.ndarray, held_out: np.ndarray, false_alarm: float = 0.05) -> Novelty:
    """Fit the distance on training images and its threshold on held-out ones.

    The density is probabilistic PCA (Tipping and Bishop, JRSS B 1999). The threshold is the conformal quantile of the
    held-out distances: for a new image exchangeable with them the chance of a false alarm is at most `false_alarm`
    (Vovk et al., Algorithmic Learning in a Random World, 2005, section 2.2). Several images of one patient are not
    independent, and another hospital is not exchangeable: the rate is that of this archive.

    Args:
        features: embeddings of training images, shape ``(N, D)``.
        held_out: embeddings of images of other patients, shape ``(M, D)``.
        false_alarm: wanted rate, in (0, 1). With few held-out images it rises to ``1 / (M + 1)``.

    Raises:
        ValueError: if there are fewer than two training images, no held-out one, or `false_alarm` is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> novelty = fit_novelty(rng.normal(size=(500, 8)), rng.normal(size=(99, 8)), false_alarm=0.05)
        >>> novelty.is_novel(np.array([[0.0] * 8, [9.0] * 8])).tolist()
        [False, True]
    """
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm must be in (0, 1), got {false_alarm}")
    if len(features) < 2 or len(held_out) < 1:
        raise ValueError(
            f"a distance needs two training images or more and a held-out one, got {len(features)} and {len(held_out)}"
        )
    pca = PCA(svd_solver="full").fit(np.asarray(features, dtype=np.float64))
    ratio = np.cumsum(pca.explained_variance_ratio_)
    kept = min(int(np.searchsorted(ratio, _VARIANCE)) + 1, _MAX_DIRECTIONS, len(ratio))
    rest = float(pca.explained_variance_[kept:].sum()) / max(features.shape[1] - kept, 1)
    noise = max(rest, float(pca.explained_variance_[0]) * 1e-6, np.finfo(float).tiny)
    variances = np.maximum(pca.explained_variance_[:kept], noise)
    novelty = Novelty(pca.mean_, pca.components_[:kept], variances, noise, math.inf, false_alarm, len(held_out))
    distances = np.sort(novelty.distance(held_out))
    place = min(math.ceil((len(distances) + 1) * (1 - false_alarm)), len(distances))
    rate = max(false_alarm, 1 / (len(distances) + 1))
    threshold = float(distances[place - 1]) * _ROOM
    return dataclasses.replace(novelty, threshold=threshold, false_alarm=rate)
