"""Adversarial losses: of the discriminator from its logits for real and fake, of the generator from those for fake."""

from typing import Literal

from keras import ops

from mmkeras.types import Tensor


def non_saturating(real, fake):
    """Binary cross-entropy; the generator maximises log D(fake) (Goodfellow 2014)."""
    return ops.mean(ops.softplus(-real)), ops.mean(ops.softplus(fake))


def hinge(real, fake):
    """Hinge loss (Lim and Ye 2017)."""
    return ops.mean(ops.relu(1 - real)), ops.mean(ops.relu(1 + fake))


def least_squares(real, fake):
    """Squared distance to one for real and zero for fake (LSGAN, Mao 2017)."""
    return ops.mean(ops.square(real - 1)), ops.mean(ops.square(fake))


def wasserstein(real, fake):
    """Difference of the critic's means (WGAN, Arjovsky 2017); the gradient penalty comes on top."""
    return -ops.mean(real), ops.mean(fake)


def generator_loss(name: Literal["non_saturating", "hinge", "least_squares", "wasserstein"], fake: Tensor) -> Tensor:
    """What the generator minimises under the loss `name`: from the logits `(batch,)` of its pictures to a number."""
    if name == "non_saturating":
        return ops.mean(ops.softplus(-fake))
    if name == "least_squares":
        return ops.mean(ops.square(fake - 1))
    if name in ("hinge", "wasserstein"):
        return -ops.mean(fake)
    raise ValueError(f"Expected one of {', '.join(ADVERSARIAL_LOSSES)}. Received: {name!r}.")


def gradient_penalty(gradients: Tensor) -> Tensor:
    """`(norm - 1)^2` of the critic's gradients `(batch, ...)` between real and fake (WGAN-GP, Gulrajani 2017)."""
    norm = ops.sqrt(ops.sum(ops.square(ops.reshape(gradients, (ops.shape(gradients)[0], -1))), axis=-1) + 1e-12)
    return ops.mean(ops.square(norm - 1))


ADVERSARIAL_LOSSES = {
    "non_saturating": non_saturating,
    "hinge": hinge,
    "least_squares": least_squares,
    "wasserstein": wasserstein,
}
