"""Attention over modalities, and over each other's tokens."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import FeatureFusion, masked_softmax
from mmkeras.layers.pooling import masked_mean


@keras.saving.register_keras_serializable(package="mmkeras")
class Attention(FeatureFusion):
    """Features weighted by a softmax of `v . tanh(W x)`, one score a modality (additive attention, Bahdanau 2015)."""

    def build_fusion(self, num_modalities):
        self.hidden = layers.Dense(self.width, activation="tanh", name="hidden")
        self.score = layers.Dense(1, use_bias=False, name="score")
        self.hidden.build((None, self.width))
        self.score.build((None, self.width))

    def fuse(self, features, present):
        scores = ops.concatenate([self.score(self.hidden(x)) for x in features], axis=-1)
        weights = masked_softmax(scores, present)
        return sum(weights[:, i : i + 1] * x for i, x in enumerate(features))


@keras.saving.register_keras_serializable(package="mmkeras")
class CrossAttention(FeatureFusion):
    """Each modality's tokens look at the tokens of the others (crossmodal attention, Tsai 2019), then their mean.

    A learned token that is always there gives them something to look at when all others are absent. The averages of
    the modalities that are present are averaged in turn.

    Args:
        width: size of the fused vector, divisible by `num_heads`.
        num_heads: attention heads.
    """

    least_modalities = 2

    def __init__(self, width, num_heads=4, **kwargs):
        super().__init__(width, **kwargs)
        if width % num_heads:
            raise ValueError(
                f"Expected a width divisible by num_heads. Received: width={width}, num_heads={num_heads}."
            )
        self.num_heads = num_heads

    def build_fusion(self, num_modalities):
        self.nothing = self.add_weight(name="nothing", shape=(1, 1, self.width), initializer="uniform")
        self.attentions, self.norms = [], []
        for i in range(num_modalities):
            attention = layers.MultiHeadAttention(self.num_heads, self.width // self.num_heads, name=f"attention_{i}")
            attention.build((None, None, self.width), (None, None, self.width))
            norm = layers.LayerNormalization(name=f"norm_{i}")
            norm.build((None, None, self.width))
            self.attentions.append(attention)
            self.norms.append(norm)

    def call(self, tokens, presence=None, tokens_mask=None, mask=None):
        tokens, present, masks = self.inputs(tokens, presence, tokens_mask or mask)
        projected, kept = self.project_tokens(tokens, present, masks)
        pooled = [self._attend(i, projected, kept) for i in range(len(projected))]
        weights = ops.cast(present, pooled[0].dtype)
        total = sum(weights[:, i : i + 1] * x for i, x in enumerate(pooled))
        return total / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1.0)

    def _attend(self, i, projected, kept):
        """The tokens of modality `i` after a look at all others, averaged: `(batch, width)`."""
        x = projected[i]
        batch = ops.shape(x)[0]
        others = [ops.broadcast_to(self.nothing, (batch, 1, self.width))]
        others += [other for j, other in enumerate(projected) if j != i]
        mask = [ops.ones((batch, 1), dtype="bool")] + [k for j, k in enumerate(kept) if j != i]
        keys = ops.concatenate(others, axis=1)
        mask = ops.broadcast_to(ops.concatenate(mask, axis=1)[:, None], (batch, ops.shape(x)[1], ops.shape(keys)[1]))
        return masked_mean(self.norms[i](x + self.attentions[i](x, keys, attention_mask=mask)), kept[i])

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}
