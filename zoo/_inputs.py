"""The modalities of a model: the hyperparameters they share, and the parts these configure."""

import dataclasses

from zoo._config import Config, hp

KINDS = ("image", "text", "vector", "audio", "video")
# What every model's preset `tiny` has in common.
TINY = {
    "image_size": (16, 16), "image_width": 8, "text_length": 8, "vocabulary_size": 50, "text_dim": 16, "text_width": 16,
    "vector_width": 8, "audio_seconds": 1.0, "audio_width": 4, "video_frames": 4, "video_size": (16, 16),
    "video_width": 4, "dropout": 0.0, "learning_rate": 5e-3, "batch_size": 8,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Inputs(Config):
    """Which modalities a model has, how they are read, augmented and encoded."""

    modalities: dict[str, str] = hp(
        {"image": "image", "text": "text"}, "name=kind of each input: image, text, vector, audio or video"
    )
    image_size: tuple[int, int] = hp((48, 48), "height x width in pixels", low=4)
    image_channels: int = hp(3, "channels of a picture", (1, 3))
    image_resize: str = hp("stretch", "how pictures of another shape are fitted", ("stretch", "pad", "crop"))
    image_encoder: str = hp(
        "cnn", "cnn, plain_cnn, resnet, vit, mixer, patches, flat, or a network of keras.applications"
    )
    image_width: int = hp(32, "channels of the first stage")
    image_grid: int = hp(4, "most places on the shorter side of the encoded picture")
    image_weights: str | None = hp(None, "imagenet, for a network of keras.applications (downloads)")
    text_length: int = hp(24, "most tokens of a text; zoo.train takes the longest it is trained on if shorter", low=2)
    text_unit: str = hp("words", "what a token is", ("words", "characters"))
    text_lower: bool = hp(True, "lower the case")
    text_punctuation: str = hp("separate", "what becomes of punctuation", ("separate", "strip", "keep"))
    vocabulary_size: int = hp(10_000, "most tokens known; zoo.train takes those of the training split", low=5)
    text_encoder: str = hp(
        "bilstm", "network of the text", ("lstm", "bilstm", "gru", "bag", "cnn", "transformer", "words")
    )
    text_dim: int = hp(128, "size of a word's embedding")
    text_width: int = hp(128, "size of an encoded token")
    word_vectors: str | None = hp(None, "file of pretrained word vectors in GloVe's format")
    vector_dim: dict[str, int] = hp({}, "name=size of each vector; zoo.train takes it from the data")
    vector_encoder: str = hp("mlp", "network of a vector", ("mlp", "linear"))
    vector_width: int = hp(64, "size of an encoded vector")
    audio_rate: int = hp(8000, "samples a second that a sound is brought to", low=1000)
    audio_seconds: float = hp(
        10.0, "most of a sound; zoo.train takes the longest it is trained on if shorter", low=0.01
    )
    audio_mels: int = hp(40, "bands of the mel scale")
    audio_width: int = hp(16, "channels of the first stage")
    video_frames: int = hp(8, "frames taken from a clip, at even distances")
    video_size: tuple[int, int] = hp((32, 32), "height x width of a frame in pixels", low=4)
    video_encoder: str = hp("cnn_lstm", "network of a clip", ("cnn_lstm", "conv3d"))
    video_width: int = hp(16, "channels of the first stage")
    dropout: float = hp(0.1, "rate of dropping units of the encoders", high=0.99)
    modality_dropout: float = hp(0.0, "probability of leaving out each modality of a row in training", high=0.99)
    freeze: tuple[str, ...] = hp((), "modalities whose encoders training leaves as they begin")
    curriculum: int = hp(0, "epochs in which short texts come first; longer ones join with each of them", low=0)
    augment_flip: bool = hp(False, "mirror half of the pictures")
    augment_shift: float = hp(0.0, "largest shift, as a share of the side")
    augment_zoom: float = hp(0.0, "largest change of size, as a logarithm")
    augment_rotate: float = hp(0.0, "largest turn in degrees")
    augment_color: float = hp(0.0, "largest change of saturation, contrast and gamma")
    augment_gray: float = hp(0.0, "share of pictures that lose their colour", high=1.0)
    augment_erase: float = hp(0.0, "share of pictures that lose a rectangle", high=1.0)
    augment_tokens: float = hp(0.0, "probability of a token becoming unknown", high=1.0)

    def __post_init__(self):
        super().__post_init__()
        if not self.modalities:
            raise ValueError("Expected at least one modality, such as modalities={'image': 'image'}. Received: none.")
        for name, kind in self.modalities.items():
            if kind not in KINDS:
                raise ValueError(
                    f"Invalid kind of the modality `{name}`. Expected image, text, vector, audio or video. "
                    f"Received: {kind!r}."
                )
            if not name or "/" in name:
                raise ValueError(f"A modality's name has letters and no slash. Received: {name!r}.")
            if name in ("presence", "label"):
                raise ValueError(f"A modality cannot be called `{name}`: that name has a meaning of its own.")
            if kind == "vector" and self.vector_dim.get(name, 1) < 1:
                raise ValueError(
                    f"Expected a positive size for the vector `{name}`. Received: {self.vector_dim[name]}."
                )

        if self.curriculum and not self.of_kind("text"):
            raise ValueError(f"A curriculum goes by the length of texts. Received: modalities={self.modalities}.")
        for name in self.freeze:
            if name not in self.modalities:
                raise ValueError(f"Expected modalities to freeze: {', '.join(self.names)}. Received: `{name}`.")

    def refuse(self, names, taken):
        """An error if an output of the model has the name of one of these modalities, which are outputs as well."""
        for name in sorted({*names} & {*taken}):
            raise ValueError(f"A modality that the model gives back cannot be called `{name}`, as another output is.")

    def unused(self, option, why):
        """An error if a hyperparameter is set that this model would not look at."""
        if getattr(self, option):
            raise ValueError(f"{why}. Received: {option}={getattr(self, option)}.")

    @property
    def names(self):
        """The modalities' names, sorted: their order everywhere."""
        return sorted(self.modalities)

    def of_kind(self, *kinds):
        """The names of the modalities of these kinds."""
        return [name for name in self.names if self.modalities[name] in kinds]

    def shape(self, name):
        """Shape of a modality's input, without the batch."""
        kind = self.modalities[name]
        if kind == "image":
            return (*self.image_size, self.image_channels)
        if kind == "text":
            return (self.text_length,)
        if kind == "audio":
            from mmkeras.layers.spectrogram import num_frames

            return (num_frames(self.audio_rate, self.audio_seconds), self.audio_mels)
        if kind == "video":
            return (self.video_frames, *self.video_size, self.image_channels)
        if name not in self.vector_dim:
            raise ValueError(f"The size of the vector `{name}` is not known. Give it: vector_dim={{'{name}': SIZE}}.")
        return (self.vector_dim[name],)


def raw_input(config, name):
    """A Keras input for the raw values of a modality: encoded bytes, a text, or numbers."""
    import keras

    if config.modalities[name] == "vector":
        return keras.Input(config.shape(name), dtype="float32", name=name)
    return keras.Input((), dtype="string", name=name)


def read(config, name, raw):
    """Raw values of a modality to what the model takes: pixels, token ids, standardised numbers."""
    from mmkeras import layers

    kind = config.modalities[name]
    if kind == "image":
        return layers.DecodeImage(config.image_size, config.image_channels, config.image_resize, name=f"read_{name}")(
            raw
        )
    if kind == "text":
        options = {"unit": config.text_unit, "lower": config.text_lower, "punctuation": config.text_punctuation}
        return layers.TokenizeText(config.text_length, name=f"read_{name}", **options)(raw)
    if kind == "audio":
        settings = (config.audio_rate, config.audio_seconds, config.audio_mels)
        return layers.DecodeAudio(*settings, name=f"read_{name}")(raw)
    if kind == "video":
        settings = (config.video_frames, config.video_size, config.image_channels, config.image_resize)
        return layers.DecodeVideo(*settings, name=f"read_{name}")(raw)
    return layers.StandardizeVector(name=f"read_{name}")(raw)


def preprocess(config, names=None):
    """The model from raw values `{name: bytes, text or numbers}` to inputs and `presence (batch, modalities)`."""
    import keras

    from mmkeras import layers

    names = names or config.names
    raw = {name: raw_input(config, name) for name in names}
    outputs = {name: read(config, name, raw[name]) for name in names}
    outputs["presence"] = layers.RawPresence(name="presence")([raw[name] for name in names])
    return keras.Model(raw, outputs, name="preprocess")


def label_targets(column="label", several=False, output="label"):
    """The model from a column of raw labels to class numbers; with `several` from tags to zeros and ones."""
    import keras

    from mmkeras import layers

    raw = keras.Input((), dtype="string", name=column)
    encode = (layers.EncodeTags if several else layers.EncodeLabel)(name=f"read_{column}")
    return keras.Model({column: raw}, {output: encode(raw)}, name="targets")


def augment(config, names=None):
    """What changes a batch in training, or None."""
    from mmkeras.data import Augment

    strengths = {
        f.name[8:]: getattr(config, f.name) for f in dataclasses.fields(config) if f.name.startswith("augment_")
    }
    if not any(strengths.values()):
        return None
    strengths["token_dropout"] = strengths.pop("tokens")
    kinds = {name: kind for name, kind in config.modalities.items() if name in (names or config.names)}
    return Augment(kinds, **strengths)


def inputs(config, names=None):
    """The Keras inputs of a model: its modalities by name, and `presence`."""
    import keras

    names = names or config.names
    dtype = {"text": "int32"}
    tensors = {n: keras.Input(config.shape(n), name=n, dtype=dtype.get(config.modalities[n], "float32")) for n in names}
    tensors["presence"] = keras.Input((len(names),), name="presence")
    return tensors


def encode(config, name, tensor):
    """A modality's input to tokens `(batch, length, width)`, by an encoder called `<name>_encoder`."""
    network = encoder(config, name)
    network.trainable = name not in config.freeze
    return network(tensor)


def encoder(config, name):
    """The model from a modality's input to tokens, called `<name>_encoder`."""
    from mmkeras import encoders

    kind, own_name = config.modalities[name], f"{name}_encoder"
    if kind == "image":
        return encoders.image_encoder(
            config.shape(name), config.image_encoder, config.image_width, config.dropout, config.image_weights,
            config.image_grid, own_name,
        )  # fmt: skip
    if kind == "text":
        return encoders.text_encoder(
            config.text_length, config.vocabulary_size, config.text_encoder, config.text_dim, config.text_width,
            config.dropout, own_name,
        )  # fmt: skip
    if kind == "audio":
        return encoders.audio_encoder(config.shape(name), config.audio_width, config.dropout, own_name)
    if kind == "video":
        return encoders.video_encoder(
            config.shape(name), config.video_encoder, config.video_width, config.dropout, own_name
        )
    return encoders.vector_encoder(
        config.shape(name)[0], config.vector_encoder, config.vector_width, config.dropout, own_name
    )


def staged_encoder(config, name):
    """The stages of a modality's encoder, functions from features to features."""
    from mmkeras import encoders

    kind = config.modalities[name]
    width = getattr(config, f"{kind}_width")
    options = {"vocabulary_size": config.vocabulary_size, "network": config.text_encoder}
    return encoders.staged_encoder(kind, width, name=name, **options)


def memory(config, inputs, names, width):
    """The tokens of some modalities beside each other, and which of them count, by a JoinTokens called `memory`."""
    import keras

    from mmkeras import layers

    presence = keras.ops.take(inputs["presence"], [config.names.index(name) for name in names], axis=1)
    presence = layers.ModalityDropout(config.modality_dropout, name="modality_dropout")(presence)
    tokens = [encode(config, name, inputs[name]) for name in names]
    return layers.JoinTokens(width, name="memory")(tokens, presence)


def decode(config, name, latent, width):
    """A latent `(batch, size)` to a modality as it was read, a text as logits of its tokens, by `<name>_decoder`."""
    from mmkeras import decoders

    kind, size, own_name = config.modalities[name], latent.shape[-1], f"{name}_decoder"
    if kind == "image":
        network = "flat" if config.image_encoder == "flat" else "cnn"
        return decoders.image_decoder(size, config.shape(name), network, width, own_name)
    if kind == "text":
        return decoders.text_decoder(size, config.text_length, config.vocabulary_size, 4 * width, own_name)
    if kind == "audio":
        return decoders.audio_decoder(size, config.shape(name), width, own_name)
    if kind == "video":
        return decoders.video_decoder(size, config.shape(name), width, own_name)
    return decoders.vector_decoder(size, config.shape(name)[0], 4 * width, own_name)
