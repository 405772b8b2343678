"""Fusions between the stages of encoders: what each modality has seen so far tells the next stage of the others."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import check_modalities


class StagedFusion(layers.Layer):
    """`{name: features (batch, .., channels)}`, presence and a central vector, to features and central vector again.

    A modality's features are squeezed to their mean over all places, masked ones left out; an absent one changes
    nothing. Masks go through.

    Args:
        width: size of the central vector.
    """

    least_modalities = 1

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.supports_masking = True

    def build(self, features_shape, presence_shape=None, central_shape=None):
        self.names = sorted(features_shape)
        check_modalities(self)
        self.projections = [layers.Dense(self.width, use_bias=False, name=f"{name}_squeeze") for name in self.names]
        for name, projection in zip(self.names, self.projections, strict=True):
            projection.build((None, features_shape[name][-1]))
        self.build_fusion(features_shape)

    def build_fusion(self, features_shape):
        """Creates the weights of the family."""

    def squeezed(self, features, present, masks):
        """Projected means of the features, a list of `(batch, width)`, zero where absent."""
        vectors = []
        for i, (name, project) in enumerate(zip(self.names, self.projections, strict=True)):
            x, mask = features[name], (masks or {}).get(name)
            x = ops.where(ops.reshape(present[:, i], (-1, *[1] * (len(x.shape) - 1))), x, ops.zeros_like(x))
            kept = ops.ones_like(x[..., :1]) if mask is None else ops.cast(mask, x.dtype)[..., None]
            places = tuple(range(1, len(x.shape) - 1))
            vectors.append(project(ops.sum(x * kept, axis=places) / ops.maximum(ops.sum(kept, axis=places), 1.0)))
        return vectors

    def call(self, features, presence, central=None, features_mask=None, mask=None):
        if sorted(features) != self.names:
            raise ValueError(f"Expected features of {self.names}. Received: {sorted(features)}.")
        vectors = self.squeezed(features, presence > 0, features_mask or mask)
        return self.exchange(features, vectors, presence > 0, central)

    def compute_mask(self, features, previous_mask=None):
        return {name: (previous_mask or {}).get(name) for name in features}, None

    def compute_output_shape(self, features_shape, presence_shape=None, central_shape=None):
        return dict(features_shape), (next(iter(features_shape.values()))[0], self.width)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="mmkeras")
class MMTM(StagedFusion):
    """All modalities' channel means together make gates for the channels of each (MMTM, Joze 2020)."""

    least_modalities = 2

    def build_fusion(self, features_shape):
        self.bias = self.add_weight(name="bias", shape=(self.width,), initializer="zeros")
        self.gates = [layers.Dense(features_shape[name][-1], name=f"{name}_gate") for name in self.names]
        for gate in self.gates:
            gate.build((None, self.width))

    def exchange(self, features, vectors, present, central):
        """The features, each channel through its gate where present, and what the gates are made of."""
        joint = ops.relu(sum(vectors) + ops.cast(self.bias, vectors[0].dtype))
        gated = {}
        for i, (name, gate) in enumerate(zip(self.names, self.gates, strict=True)):
            x = features[name]
            excited = 2 * ops.sigmoid(gate(joint))
            excited = ops.reshape(excited, (-1, *[1] * (len(x.shape) - 2), x.shape[-1]))
            gated[name] = ops.where(ops.reshape(present[:, i], (-1, *[1] * (len(x.shape) - 1))), x * excited, x)
        return gated, joint


@keras.saving.register_keras_serializable(package="mmkeras")
class CentralNet(StagedFusion):
    """A network beside theirs, at each stage a weighted sum of itself and of them (CentralNet, Vielzeuf 2018)."""

    def build_fusion(self, features_shape):
        self.weights_of = self.add_weight(name="shares", shape=(len(self.names) + 1,), initializer="ones")
        self.next = layers.Dense(self.width, activation="relu", name="central")
        self.next.build((None, self.width))

    def exchange(self, features, vectors, present, central):
        """The features as they are, and the next central vector, from theirs and the last."""
        shares = ops.cast(self.weights_of, vectors[0].dtype)
        total = sum(shares[i + 1] * x for i, x in enumerate(vectors))
        total = total if central is None else total + shares[0] * central
        return {name: ops.copy(x) for name, x in features.items()}, self.next(total)
