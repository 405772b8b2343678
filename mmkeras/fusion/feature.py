"""What the fusions of tokens share: their interface, the projections and what absent modalities are."""

from keras import layers, ops

from mmkeras.layers.pooling import FAR_BELOW, masked_mean


class Fusion(layers.Layer):
    """A layer over `{name: tokens (batch, length, width_of_it)}` and presence `(batch, modalities)`.

    Each modality has a projection to `width`; the order of the modalities is that of their sorted names.

    Args:
        width: size of what comes out.

    Raises:
        ValueError: when built over fewer modalities than it joins: one where it is made of what two say to each other.
    """

    least_modalities = 1

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.supports_masking = True

    def build(self, tokens_shape, presence_shape=None):
        self.names = sorted(tokens_shape)
        check_modalities(self)
        self.projections = [layers.Dense(self.feature_width, name=f"{name}_projection") for name in self.names]
        for name, projection in zip(self.names, self.projections, strict=True):
            projection.build((tokens_shape[name][0], tokens_shape[name][-1]))
        self.build_fusion(len(self.names))

    @property
    def feature_width(self):
        """Size of a modality's feature before it is fused."""
        return self.width

    def build_fusion(self, num_modalities):
        """Creates the weights of the family."""

    def inputs(self, tokens, presence, masks):
        """Tokens, zero where absent; presence as booleans `(batch, modalities)`, all True if None; masks by name.

        Keras passes the masks as `tokens_mask` where presence is given and as `mask` where it is not. The tokens are
        zeroed before they meet a weight: whatever stands there, even NaN, must not reach the weight's gradient.
        """
        if sorted(tokens) != self.names:
            raise ValueError(f"Expected tokens of {self.names}. Received: {sorted(tokens)}.")
        if presence is None:
            batch = ops.shape(tokens[self.names[0]])[0]
            return tokens, ops.ones((batch, len(self.names)), dtype="bool"), masks or {}
        present = presence > 0
        tokens = {
            name: ops.where(present[:, i : i + 1, None], tokens[name], ops.zeros_like(tokens[name]))
            for i, name in enumerate(self.names)
        }
        return tokens, present, masks or {}

    def project_tokens(self, tokens, present, masks):
        """Lists of the projected tokens `(batch, length, width)` and of which of them count `(batch, length)`.

        The others, of padding and of absent modalities, are zero.
        """
        projected, kept = [], []
        for i, (name, project) in enumerate(zip(self.names, self.projections, strict=True)):
            x, here, real = project(tokens[name]), present[:, i : i + 1], masks.get(name)
            keep = ops.broadcast_to(here, ops.shape(x)[:2]) if real is None else ops.logical_and(real, here)
            projected.append(ops.where(keep[..., None], x, ops.zeros_like(x)))
            kept.append(keep)
        return projected, kept

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class FeatureFusion(Fusion):
    """Tokens of all modalities to one vector `(batch, width)`.

    Each modality's tokens are averaged (masked ones do not count) and projected to `width`; the family's `fuse` does
    the rest. The features of an absent modality are zero when they reach it.

    Args:
        width: size of the fused vector.
    """

    def fuse(self, features, present):
        """Features, a list of `(batch, feature_width)`, and bools `(batch, modalities)` to `(batch, width)`."""
        raise TypeError(f"{type(self).__name__} does not say how it fuses: it must define `fuse`.")

    def call(self, tokens, presence=None, tokens_mask=None, mask=None):
        tokens, present, masks = self.inputs(tokens, presence, tokens_mask or mask)
        features = []
        for i, (name, project) in enumerate(zip(self.names, self.projections, strict=True)):
            x = project(masked_mean(tokens[name], masks.get(name)))
            features.append(ops.where(present[:, i : i + 1], x, ops.zeros_like(x)))
        return self.fuse(features, present)

    def compute_mask(self, tokens, presence=None, tokens_mask=None, mask=None, previous_mask=None):
        return None

    def compute_output_shape(self, tokens_shape, presence_shape=None):
        return (next(iter(tokens_shape.values()))[0], self.width)


def check_modalities(fusion):
    """Raises a ValueError where a fusion has too few modalities to join."""
    if len(fusion.names) < fusion.least_modalities:
        raise ValueError(
            f"{type(fusion).__name__} is a fusion of at least {fusion.least_modalities} modalities. "
            f"Received: {', '.join(fusion.names) or 'none'}. Add one, or take a fusion of any number, as Concat."
        )


def masked_softmax(scores, present):
    """Softmax over the modalities `(batch, modalities)`; the absent ones get exactly zero."""
    scores = ops.where(present, scores, ops.full_like(scores, FAR_BELOW))
    # Not ops.softmax: it warns where there is one modality only.
    return ops.exp(scores - ops.logsumexp(scores, axis=-1, keepdims=True))


def product(factors, present):
    """The product of factors `(batch, ..)`, those of absent modalities being one."""
    result = None
    for i, x in enumerate(factors):
        here = ops.reshape(present[:, i], (-1, *[1] * (len(x.shape) - 1)))
        x = ops.where(here, x, ops.ones_like(x))
        result = x if result is None else result * x
    return result


def with_one(x):
    """`(batch, width)` to `(batch, width + 1)`: a one at the end."""
    return ops.concatenate([x, ops.ones_like(x[:, :1])], axis=-1)
