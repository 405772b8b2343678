"""The models of `zoo bench train` as one would write them in PyTorch: networks and losses.

Keras pads a strided convolution behind the picture, PyTorch on both sides. A picture turned by 180 degrees, under
kernels turned likewise, has the same features either way, turned: so the networks here see their pictures.
"""

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional

START = 2  # mmkeras.layers.tokens


class Trained(nn.Module):
    """What `zoo.bench._trainer` asks of a model; its `forward` gives outputs, its `loss` a number."""

    def __init__(self, c):
        super().__init__()
        self.c = c

    def answers(self, batch):
        """What is compared with Keras' model: outputs, and the loss."""
        return {**self(batch), "loss": self.loss(batch)}

    def parts(self):
        """What is minimised in turn: (loss, its optimiser, the weights)."""
        return [(self.loss, *optimizer(self, self.c))]

    def after_step(self):
        """What is left to do after a step."""


def optimizer(network, c):
    """The optimiser of the hyperparameters, all weights at once, and the weights."""
    weights = list(network.parameters())
    options = {"lr": c.learning_rate, "betas": (getattr(c, "beta_1", 0.9), 0.999), "eps": 1e-7, "fused": True}
    if c.optimizer == "adamw":
        return torch.optim.AdamW(weights, weight_decay=c.weight_decay, **options), weights
    return torch.optim.Adam(weights, **options), weights


def batch(arrays):
    """A batch `{name: array}` as tensors; pictures with channels first, turned, and as they are under `pixels`."""
    tensors = {n: torch.from_numpy(np.ascontiguousarray(array)) for n, array in arrays.items()}
    tensors = {n: x.long() if x.dtype == torch.int32 else x for n, x in tensors.items()}
    tensors["pixels"] = tensors["image"].permute(0, 3, 1, 2)
    tensors["image"] = tensors["image"].flip(1, 2).permute(0, 3, 1, 2)
    return tensors


def conv(ins, outs, size=3, stride=1, activate=True):
    layers = [nn.Conv2d(ins, outs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outs, eps=1e-3)]
    return nn.Sequential(*layers, *[nn.ReLU(inplace=True)] * activate)


def image_encoder(c, channels=3):
    """Pixels to a feature map: the networks `cnn` and `resnet` of `mmkeras.encoders`."""
    side, width, layers = min(c.image_size), c.image_width, []
    if c.image_encoder == "cnn":
        while side > c.image_grid:
            layers.append(conv(channels, width, stride=2))
            side, channels, width = side // 2, width, 2 * width
        return nn.Sequential(*layers, nn.Dropout2d(c.dropout)), channels, side**2
    layers += [conv(channels, width, stride=2 if side > 32 else 1), Residual(width, width, 1)]
    side, channels = side // 2 if side > 32 else side, width
    for stage, num_blocks in ((2, 2), (4, 2), (8, 1)):
        if side <= c.image_grid:
            break
        for block in range(num_blocks):
            layers.append(Residual(channels, width * stage, 1 if block else 2))
            channels = width * stage
        side //= 2
    return nn.Sequential(*layers, nn.Dropout2d(c.dropout)), channels, side**2


class Residual(nn.Module):
    def __init__(self, ins, outs, stride):
        super().__init__()
        self.body = nn.Sequential(conv(ins, outs, 3, stride), conv(outs, outs, activate=False))
        shortcut = [nn.AvgPool2d(stride)] if stride > 1 else []
        self.shortcut = nn.Sequential(*shortcut, *[conv(ins, outs, 1, activate=False)] * (ins != outs))

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def tokens(features):
    """A feature map as tokens `(batch, places, channels)`, turned back."""
    return features.flatten(2).flip(2).transpose(1, 2)


class TextEncoder(nn.Module):
    """`bilstm` and `bag` of `mmkeras.encoders`: ids `(batch, length)` to tokens and a mask."""

    def __init__(self, c):
        super().__init__()
        self.text_embedding = nn.Embedding(c.vocabulary_size, c.text_dim)
        self.dropout = nn.Dropout(c.dropout)
        self.is_bag = c.text_encoder == "bag"
        if self.is_bag:
            self.dense = nn.Linear(c.text_dim, c.text_width)
        else:
            self.forward_lstm, self.backward_lstm = (
                nn.LSTM(c.text_dim, c.text_width // 2, batch_first=True) for _ in range(2)
            )

    def both(self, x, mask):
        """Padding comes last: one LSTM needs no mask, the other reads each text from its own end."""
        places = torch.arange(x.shape[1])
        order = mask.sum(1, keepdim=True) - 1 - places
        order = torch.where(order >= 0, order, places)[..., None]
        back, _ = self.backward_lstm(x.gather(1, order.expand(x.shape)))
        return torch.cat([self.forward_lstm(x)[0], back.gather(1, order.expand(back.shape))], dim=-1)

    def forward(self, ids):
        mask = ids != 0
        mask[:, 0] = True
        x = self.dropout(self.text_embedding(ids))
        x = torch.relu(self.dense(x)) if self.is_bag else self.both(x, mask)
        return self.dropout(x), mask


def masked_mean(x, mask):
    kept = mask[..., None].to(x.dtype)
    return (x * kept).sum(1) / kept.sum(1).clamp(min=1)


def drop_modalities(presence, rate, training):
    if not training or not rate:
        return presence
    kept = presence * (torch.rand_like(presence) >= rate)
    return torch.where(kept.any(1, keepdim=True), kept, presence)


class ImageDecoder(nn.Module):
    def __init__(self, size, shape, width):
        super().__init__()
        self.grid = [side // 8 for side in shape]
        self.dense = nn.Linear(size, self.grid[0] * self.grid[1] * 4 * width, bias=False)
        self.norm = nn.BatchNorm2d(4 * width, eps=1e-3)
        sizes = (4 * width, 2 * width, width, max(width // 2, 4))
        self.blocks = nn.ModuleList(conv(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Conv2d(sizes[-1], 3, 3, padding=1)

    def forward(self, x):
        x = self.dense(x).unflatten(1, (*self.grid, -1)).permute(0, 3, 1, 2)
        x = torch.relu(self.norm(x))
        for block in self.blocks:
            x = block(functional.interpolate(x, scale_factor=2))
        return torch.sigmoid(self.last(x))


class TextDecoder(nn.Module):
    def __init__(self, size, length, vocabulary_size, width):
        super().__init__()
        self.dense, self.lstm = nn.Linear(size, width), nn.LSTM(width, width, batch_first=True)
        self.positions = nn.Parameter(torch.empty(length, width))
        self.out = nn.Linear(width, vocabulary_size)

    def forward(self, x):
        return self.out(self.lstm(torch.relu(self.dense(x))[:, None] + self.positions)[0])


def token_loss(logits, ids):
    """Cross-entropy a token, the mean over those of a row, `(batch,)`."""
    loss = functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none", ignore_index=0)
    return loss.sum(1) / (ids != 0).sum(1).clamp(min=1)


class Autoencoder(Trained):
    def __init__(self, c):
        super().__init__(c)
        dim = c.embedding_dim
        self.image_encoder, channels, places = image_encoder(c)
        self.text_encoder = TextEncoder(c)
        self.image_projection = nn.Linear(channels * places, dim)
        self.text_projection = nn.Linear(c.text_length * c.text_width, dim)
        self.image_decoder = ImageDecoder(dim, c.image_size, c.decoder_width)
        self.text_decoder = TextDecoder(dim, c.text_length, c.vocabulary_size, 4 * c.decoder_width)

    def forward(self, batch):
        presence = drop_modalities(batch["presence"], self.c.modality_dropout, self.training)[..., None] > 0
        image = self.image_projection(tokens(self.image_encoder(batch["image"])).flatten(1))
        text, mask = self.text_encoder(batch["text"])
        text = self.text_projection((text * mask[..., None]).flatten(1))
        embedding = (torch.where(presence[:, 0], image, 0) + torch.where(presence[:, 1], text, 0)) / presence.sum(1)
        return {"image": self.image_decoder(embedding), "text": self.text_decoder(embedding)}

    def answers(self, batch):
        found = super().answers(batch)
        return {**found, "image": found["image"].permute(0, 2, 3, 1)}

    def loss(self, batch):
        found, weights = self(batch), (self.c.image_loss_weight, self.c.text_loss_weight)
        pixels = (found["image"] - batch["pixels"]).square().sum(1).mean((1, 2))
        parts = torch.stack([pixels, token_loss(found["text"], batch["text"])], dim=1) * batch["presence"]
        return (parts.sum(0) / batch["presence"].sum(0) * torch.tensor(weights)).sum()


class DualEncoder(Trained):
    def __init__(self, c):
        super().__init__(c)
        self.image_encoder, channels, _ = image_encoder(c)
        self.text_encoder = TextEncoder(c)
        self.dropout = nn.Dropout(c.dropout)
        self.image_projection = nn.Linear(2 * channels, c.embedding_dim)
        self.text_projection = nn.Linear(2 * c.text_width, c.embedding_dim)
        self.log_scale = nn.Parameter(torch.empty(()))

    def forward(self, batch):
        x = self.image_encoder(batch["image"])
        image = self.image_projection(self.dropout(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)))
        x, mask = self.text_encoder(batch["text"])
        highest = x.masked_fill(~mask[..., None], -1e9).amax(1)
        text = self.text_projection(self.dropout(torch.cat([masked_mean(x, mask), highest], dim=1)))
        return {"image_embedding": functional.normalize(image), "text_embedding": functional.normalize(text)}

    def loss(self, batch):
        found, ids = self(batch), batch["text"]
        logits = self.log_scale.exp() * found["image_embedding"] @ found["text_embedding"].T
        positive = (ids[:, None] == ids[None]).all(-1).float()
        target = positive / positive.sum(1, keepdim=True)
        return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


class FusionClassifier(Trained):
    def __init__(self, c):
        super().__init__(c)
        width = c.fusion_width
        self.image_encoder, channels, _ = image_encoder(c)
        self.text_encoder = TextEncoder(c)
        self.image_projection, self.text_projection = nn.Linear(channels, width), nn.Linear(c.text_width, width)
        self.gate_0, self.gate_1 = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.fused = nn.LayerNorm(width, eps=1e-3)
        self.dropout, self.label = nn.Dropout(c.dropout), nn.Linear(width, c.num_classes)

    def forward(self, batch):
        presence = drop_modalities(batch["presence"], self.c.modality_dropout, self.training)[..., None] > 0
        image = self.image_projection(self.image_encoder(batch["image"]).mean((2, 3)))
        text = self.text_projection(masked_mean(*self.text_encoder(batch["text"])))
        image, text = torch.where(presence[:, 0], image, 0), torch.where(presence[:, 1], text, 0)
        both = torch.cat([image, text], dim=1)
        fused = torch.sigmoid(self.gate_0(both)) * image.tanh() + torch.sigmoid(self.gate_1(both)) * text.tanh()
        return {"label": self.label(self.dropout(self.fused(fused)))}

    def loss(self, batch):
        return functional.cross_entropy(self(batch)["label"], batch["label"])


class Captioner(Trained):
    def __init__(self, c):
        super().__init__(c)
        width = c.width
        self.image_encoder, channels, places = image_encoder(c)
        self.projection_0 = nn.Linear(channels, width)
        self.positions = nn.Parameter(torch.empty(places, width))
        self.word_embedding = nn.Embedding(c.vocabulary_size, width)
        self.cell = nn.LSTMCell(2 * width, width)
        self.of_token, self.of_query = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.score, self.gate = nn.Linear(width, 1, bias=False), nn.Linear(width, width)
        self.first, self.deep_output = nn.Linear(width, 2 * width), nn.Linear(3 * width, width)
        self.dropout, self.logits = nn.Dropout(c.dropout), nn.Linear(width, c.vocabulary_size)

    def forward(self, batch):
        memory = self.projection_0(tokens(self.image_encoder(batch["image"]))) + self.positions
        keys = self.of_token(memory)
        ids = batch["text"]
        words = self.word_embedding(torch.cat([torch.full_like(ids[:, :1], START), ids[:, :-1]], dim=1))
        h, c = self.first(memory.mean(1)).tanh().chunk(2, dim=-1)
        states = []
        for x in words.unbind(1):
            weights = self.score(torch.tanh(keys + self.of_query(h)[:, None])).softmax(1)
            seen = torch.sigmoid(self.gate(h)) * (weights * memory).sum(1)
            h, c = self.cell(torch.cat([x, seen], dim=1), (h, c))
            states.append(torch.cat([x, h, seen], dim=1))
        return {"text": self.logits(self.dropout(self.deep_output(torch.stack(states, 1)).tanh()))}

    def loss(self, batch):
        return token_loss(self(batch)["text"], batch["text"]).mean()


class Generator(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.text_encoder = c, TextEncoder(c)
        self.condition_mean = nn.Linear(c.text_width, c.condition_dim)
        self.condition_log_variance = nn.Linear(c.text_width, c.condition_dim)
        self.image_decoder = ImageDecoder(c.noise_dim + c.condition_dim, c.image_size, c.generator_width)

    def forward(self, ids, noise):
        pooled = masked_mean(*self.text_encoder(ids))
        mean, log_variance = self.condition_mean(pooled), self.condition_log_variance(pooled).tanh()
        condition = mean + (log_variance / 2).exp() * noise[:, self.c.noise_dim :]
        divergence = (log_variance.exp() + mean.square() - 1 - log_variance).sum(1) / 2
        return self.image_decoder(torch.cat([noise[:, : self.c.noise_dim], condition], dim=1)), divergence


class Discriminator(nn.Module):
    def __init__(self, c):
        super().__init__()
        side, channels, width, layers = min(c.image_size), 3, c.discriminator_width, []
        while side > 4:
            layers += [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
            side, channels, width = side // 2, width, 2 * width
        self.network, self.text_encoder = nn.Sequential(*layers), TextEncoder(c)
        self.features = nn.Linear(side**2 * channels, c.text_width)
        self.condition, self.realism = nn.Linear(c.text_width, c.text_width), nn.Linear(c.text_width, 1)

    def normalize(self):
        """Spectral norms, of the weights that are there now."""
        for module in self.network[::2]:
            nn.utils.parametrizations.spectral_norm(module, n_power_iterations=200)
            module.parametrizations.weight[0].n_power_iterations = 1

    def forward(self, pictures, ids):
        x = self.network(pictures).permute(0, 2, 3, 1).flatten(1)
        features = functional.leaky_relu(self.features(x), 0.2)
        condition = self.condition(masked_mean(*self.text_encoder(ids)))
        return self.realism(features)[:, 0] + (features * condition).sum(1), features


def augmented(pictures):
    """DiffAugment, as `mmkeras.training.steps`."""
    n, _, height, width = pictures.shape
    draw = lambda low, high: torch.empty(n, 1, 1, 1).uniform_(low, high)  # noqa: E731
    pictures = pictures + draw(-0.2, 0.2)
    gray = pictures.mean(1, keepdim=True)
    pictures = gray + (pictures - gray) * draw(0.0, 2.0)
    middle = pictures.mean((1, 2, 3), keepdim=True)
    pictures = middle + (pictures - middle) * draw(0.5, 1.5)
    for axis, side in ((2, height), (3, width)):
        shift = torch.randint(-(side // 8), side // 8 + 1, (n, 1))
        source = (torch.arange(side)[None] + shift).clamp(0, side - 1)
        source = source[:, None, :, None] if axis == 2 else source[:, None, None]
        pictures = pictures.gather(axis, source.expand(pictures.shape))
    return pictures


class ConditionalGAN(Trained):
    def __init__(self, c):
        super().__init__(c)
        self.generator, self.discriminator = Generator(c), Discriminator(c)
        self.averaged = Generator(c).requires_grad_(False)

    def answers(self, batch):
        image, _ = self.generator(batch["text"], batch["noise"])
        logits, features = self.discriminator(batch["pixels"], batch["text"])
        return {"image": image.permute(0, 2, 3, 1), "logits": logits, "features": features}

    def parts(self):
        self.averaged.load_state_dict(self.generator.state_dict())
        return [
            (self.discriminator_loss, *optimizer(self.discriminator, self.c)),
            (self.generator_loss, *optimizer(self.generator, self.c)),
        ]

    @torch.no_grad()
    def after_step(self):
        of, new = (list(net.state_dict().values()) for net in (self.averaged, self.generator))
        kept = [i for i, x in enumerate(of) if x.is_floating_point()]
        torch._foreach_lerp_([of[i] for i in kept], [new[i] for i in kept], 1 - self.c.average)

    def draw(self, ids):
        return self.generator(ids, torch.randn(len(ids), self.c.noise_dim + self.c.condition_dim))

    def discriminator_loss(self, batch):
        real, ids = batch["pixels"], batch["text"]
        wrong = ids.roll(1, 0)
        differs = (wrong != ids).any(1).float()
        with torch.no_grad():
            fake, _ = self.draw(ids)
        judge = self.discriminator
        for_real, for_fake = judge(augmented(real), ids)[0], judge(augmented(fake), ids)[0]
        for_wrong = differs * judge(augmented(real), wrong)[0] + (1 - differs) * for_fake
        share = self.c.mismatch_weight
        of_fake = (1 - share) * torch.relu(1 + for_fake).mean() + share * torch.relu(1 + for_wrong).mean()
        return torch.relu(1 - for_real).mean() + of_fake

    def generator_loss(self, batch):
        real, ids = batch["pixels"], batch["text"]
        drawn, divergence = self.draw(ids)
        logits, features = self.discriminator(augmented(drawn), ids)
        with torch.no_grad():
            of_real = self.discriminator(augmented(real), ids)[1].mean(0)
        matching = (features.mean(0) - of_real).square().mean()
        return self.c.kl_weight * divergence.mean() - logits.mean() + self.c.feature_weight * matching


MODELS = {
    "autoencoder": Autoencoder, "dual_encoder": DualEncoder, "fusion_classifier": FusionClassifier,
    "captioner": Captioner, "conditional_gan": ConditionalGAN,
}  # fmt: skip
