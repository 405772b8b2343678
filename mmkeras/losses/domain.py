"""How unlike two groups of rows are: losses that bring a source domain and a target domain together."""

from keras import ops

from mmkeras.types import Tensor


def mmd(features: Tensor, is_target: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two groups of rows (Gretton 2012; deep adaptation networks, Long 2015).

    By a sum of five Gaussian kernels, a quarter to four times as wide as the mean squared distance. Zero where a group
    is empty.

    Args:
        features: `(batch, dim)`.
        is_target: ones for the rows of one group, zeros for those of the other, `(batch,)`.
    """
    # Not by products: of features that are nearly alike only rounding errors would be left.
    distances = ops.sum(ops.square(features[:, None] - features[None]), axis=-1)
    width = ops.stop_gradient(ops.mean(distances)) + 1e-9
    kernel = sum(ops.exp(-distances / (size * width)) for size in (0.25, 0.5, 1.0, 2.0, 4.0))
    target = ops.cast(is_target, features.dtype)
    shares = [group / ops.maximum(ops.sum(group), 1.0) for group in (1 - target, target)]
    signed = shares[0] - shares[1]
    both = ops.cast(ops.logical_and(ops.any(target > 0), ops.any(target < 1)), features.dtype)
    return both * ops.sum(signed[:, None] * kernel * signed[None])


def coral(features: Tensor, is_target: Tensor) -> Tensor:
    """Squared distance of two groups' covariances, `|C_s - C_t|^2 / 4 dim^2` (deep CORAL, Sun 2016).

    Zero where a group has fewer than two rows.

    Args:
        features, is_target: as for `mmd`.
    """
    target = ops.cast(is_target, features.dtype)
    covariances, both = [], 1.0
    for group in (1 - target, target):
        count, rows = ops.maximum(ops.sum(group), 1.0), group[:, None]
        x = rows * (features - ops.sum(rows * features, axis=0) / count)
        both = both * ops.cast(ops.sum(group) > 1, features.dtype)
        covariances.append(ops.matmul(ops.transpose(x), x) / ops.maximum(count - 1, 1.0))
    return both * ops.sum(ops.square(covariances[0] - covariances[1])) / (4 * features.shape[-1] ** 2)


DOMAIN_LOSSES = {"mmd": mmd, "coral": coral}
