"""Fusions from tokens to tokens: the modalities look at each other, layer after layer, by transformer blocks."""

import keras
from keras import layers, ops

from mmkeras.fusion.feature import Fusion
from mmkeras.layers.transformer import TransformerBlock


class TokenFusion(Fusion):
    """`{name: tokens (batch, length, width_of_it)}` and presence to `{name: tokens (batch, length, width)}`.

    Nobody looks at padding or at an absent modality, and the tokens of an absent modality are zero. Masks go through.
    Where a token stands is its encoder's to say: nothing here tells two places of a modality apart.

    Args:
        width: size of the tokens, divisible by `num_heads`.
        num_layers: layers of blocks.
        num_heads: attention heads.
        dropout: rate of dropping weights and outputs.
    """

    def __init__(self, width, num_layers=2, num_heads=4, dropout=0.0, **kwargs):
        super().__init__(width, **kwargs)
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dropout = dropout

    def blocks(self, name, others=False, own=True):
        """The blocks of one stream, built; with `others` they look at other tokens too, without `own` only there."""
        shape = (None, None, self.width)
        built = []
        for layer in range(self.num_layers):
            block = TransformerBlock(self.num_heads, self.dropout, self_attention=own, name=f"{name}_{layer}")
            block.build(shape, shape if others else None)
            built.append(block)
        return built

    def norms(self):
        """What ends the stream of each modality: the blocks normalise what goes in, not what comes out."""
        built = [layers.LayerNormalization(name=f"{name}_norm") for name in self.names]
        for norm in built:
            norm.build((None, None, self.width))
        return built

    def mix(self, tokens, kept, present, training):
        """Lists of tokens `(batch, length, width)` and of which count, one a modality, to a list of tokens."""
        raise TypeError(f"{type(self).__name__} does not say how it fuses: it must define `mix`.")

    def call(self, tokens, presence=None, tokens_mask=None, mask=None, training=None):
        tokens, present, masks = self.inputs(tokens, presence, tokens_mask or mask)
        mixed = self.mix(*self.project_tokens(tokens, present, masks), present, training)
        return {
            name: ops.where(present[:, i : i + 1, None], x, ops.zeros_like(x))
            for i, (name, x) in enumerate(zip(self.names, mixed, strict=True))
        }

    def compute_output_shape(self, tokens_shape, presence_shape=None):
        return {name: (*shape[:-1], self.width) for name, shape in tokens_shape.items()}

    def get_config(self):
        own = {"num_layers": self.num_layers, "num_heads": self.num_heads, "dropout": self.dropout}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="mmkeras")
class SingleStream(TokenFusion):
    """All tokens in one sequence, a learned vector a modality added, through transformer blocks (UNITER, Chen 2020)."""

    def build_fusion(self, num_modalities):
        shape = (num_modalities, self.width)
        self.modalities = self.add_weight(name="modalities", shape=shape, initializer="uniform")
        self.stream, self.ends = self.blocks("block"), self.norms()

    def mix(self, tokens, kept, present, training):
        x = ops.concatenate([x + ops.cast(self.modalities[i], x.dtype) for i, x in enumerate(tokens)], axis=1)
        mask = ops.concatenate(kept, axis=1)
        for block in self.stream:
            x = block(x, tokens_mask=mask, training=training)
        ends, last = [], 0
        for i, norm in enumerate(self.ends):
            first, last = last, last + tokens[i].shape[1]
            ends.append(norm(x[:, first:last]))
        return ends


@keras.saving.register_keras_serializable(package="mmkeras")
class Bottleneck(TokenFusion):
    """A stream a modality; they tell each other something through a few shared tokens (MBT, Nagrani 2021).

    In each layer a modality's tokens and the shared ones go through its block, and the shared ones are averaged over
    the modalities that are present.

    Args:
        width, num_layers, num_heads, dropout: see `TokenFusion`.
        num_bottlenecks: number of shared tokens.
    """

    def __init__(self, width, num_layers=2, num_heads=4, dropout=0.0, num_bottlenecks=4, **kwargs):
        super().__init__(width, num_layers, num_heads, dropout, **kwargs)
        self.num_bottlenecks = num_bottlenecks

    def build_fusion(self, num_modalities):
        shape = (1, self.num_bottlenecks, self.width)
        self.bottlenecks = self.add_weight(name="bottlenecks", shape=shape, initializer="uniform")
        self.streams, self.ends = [self.blocks(name) for name in self.names], self.norms()

    def mix(self, tokens, kept, present, training):
        batch, dtype = ops.shape(tokens[0])[0], tokens[0].dtype
        shared = ops.broadcast_to(ops.cast(self.bottlenecks, dtype), (batch, self.num_bottlenecks, self.width))
        always = ops.ones((batch, self.num_bottlenecks), dtype="bool")
        here = ops.cast(present, dtype)[..., None, None]
        count = ops.maximum(ops.sum(here, axis=1), 1.0)
        for layer in range(self.num_layers):
            heard = []
            for i, blocks in enumerate(self.streams):
                mask = ops.concatenate([always, kept[i]], axis=1)
                x = blocks[layer](ops.concatenate([shared, tokens[i]], axis=1), tokens_mask=mask, training=training)
                heard.append(x[:, : self.num_bottlenecks])
                tokens = [*tokens[:i], x[:, self.num_bottlenecks :], *tokens[i + 1 :]]
            shared = sum(here[:, i] * x for i, x in enumerate(heard)) / count
        return [norm(x) for norm, x in zip(self.ends, tokens, strict=True)]

    def get_config(self):
        return {**super().get_config(), "num_bottlenecks": self.num_bottlenecks}


@keras.saving.register_keras_serializable(package="mmkeras")
class CoAttention(TokenFusion):
    """A stream a modality whose tokens look at their own and at those of all others (ViLBERT, Lu 2019).

    A learned token that is always there gives them something to look at when all others are absent.
    """

    least_modalities = 2

    def build_fusion(self, num_modalities):
        self.nothing = self.add_weight(name="nothing", shape=(1, 1, self.width), initializer="uniform")
        self.streams = [self.blocks(name, others=True) for name in self.names]
        self.ends = self.norms()

    def mix(self, tokens, kept, present, training):
        batch, dtype = ops.shape(tokens[0])[0], tokens[0].dtype
        nothing = ops.broadcast_to(ops.cast(self.nothing, dtype), (batch, 1, self.width))
        always = ops.ones((batch, 1), dtype="bool")
        for layer in range(self.num_layers):
            looked = []
            for i, blocks in enumerate(self.streams):
                others = ops.concatenate([nothing, *tokens[:i], *tokens[i + 1 :]], axis=1)
                mask = ops.concatenate([always, *kept[:i], *kept[i + 1 :]], axis=1)
                x = blocks[layer](tokens[i], others, tokens_mask=kept[i], others_mask=mask, training=training)
                looked.append(x)
            tokens = looked
        return [norm(x) for norm, x in zip(self.ends, tokens, strict=True)]


@keras.saving.register_keras_serializable(package="mmkeras")
class CrossModal(TokenFusion):
    """A stream for each pair of modalities, one looking at the other, then one for each modality (MulT, Tsai 2019).

    A learned token that is always there gives them something to look at when the other is absent.
    """

    least_modalities = 2

    def build_fusion(self, num_modalities):
        self.nothing = self.add_weight(name="nothing", shape=(1, 1, self.width), initializer="uniform")
        self.pairs, self.joins = [], []
        for name in self.names:
            others = [other for other in self.names if other != name]
            self.pairs.append([self.blocks(f"{name}_from_{other}", others=True, own=False) for other in others])
            self.joins.append(layers.Dense(self.width, name=f"{name}_join"))
            self.joins[-1].build((None, None, self.width * len(others)))
        self.streams = [self.blocks(name) for name in self.names]
        self.ends = self.norms()

    def mix(self, tokens, kept, present, training):
        batch, dtype = ops.shape(tokens[0])[0], tokens[0].dtype
        nothing = ops.broadcast_to(ops.cast(self.nothing, dtype), (batch, 1, self.width))
        always = ops.ones((batch, 1), dtype="bool")
        joined = []
        for i, pairs in enumerate(self.pairs):
            others = [j for j in range(len(tokens)) if j != i]
            looked = []
            for j, blocks in zip(others, pairs, strict=True):
                x, seen = tokens[i], ops.concatenate([nothing, tokens[j]], axis=1)
                mask = ops.concatenate([always, kept[j]], axis=1)
                for block in blocks:
                    x = block(x, seen, others_mask=mask, training=training)
                looked.append(x)
            joined.append(self.joins[i](ops.concatenate(looked, axis=-1)))
        for i, blocks in enumerate(self.streams):
            for block in blocks:
                joined[i] = block(joined[i], tokens_mask=kept[i], training=training)
        return [norm(x) for norm, x in zip(self.ends, joined, strict=True)]
