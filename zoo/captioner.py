"""Captioning: pictures, sounds, clips or texts to a text, word after word.

An encoder a modality; their tokens, beside each other, are the memory that the decoder looks at for every word: an
LSTM with attention (Show, Attend and Tell, Xu 2015) or a transformer (Vaswani 2017). A picture gives its caption, a
sound what is said, a picture and a text the text in another language.

Inputs: the modalities and `presence`; that of the column `target` are the words that came before. Outputs: `target`,
logits of its tokens `(batch, text_length, vocabulary_size)`, each from the words before it, and `attention (batch,
text_length, places)`.
"""

import dataclasses

from zoo import _inputs
from zoo._config import hp


@dataclasses.dataclass(frozen=True)
class Config(_inputs.Inputs):
    """Hyperparameters of the captioner."""

    target: str = hp("text", "the text that is written, from all other modalities")
    decoder: str = hp("lstm", "network that writes", ("lstm", "transformer"))
    width: int = hp(192, "size of the memory's tokens and of the decoder's states")
    num_layers: int = hp(2, "blocks of the transformer")
    num_heads: int = hp(4, "attention heads of the transformer")
    label_smoothing: float = hp(0.0, "share of the target spread over all words", high=0.99)
    scheduled_sampling: float = hp(0.0, "largest share of words that the decoder is told from its own guess", high=1.0)
    adversarial_weight: float = hp(0.0, "weight of a discriminator's judgement of drawn texts; the lstm alone")
    ramp: int = hp(1000, "steps until that share, and that weight, are reached")
    decoding: str = hp("beam", "how `generate` finds its texts", ("beam", "greedy"))
    beam_width: int = hp(4, "texts that beam search keeps")
    length_penalty: float = hp(0.7, "beam search: 0 favours short texts, 1 compares by the mean log-probability")
    nucleus: float = hp(0.9, "`generate_nucleus` draws from the likeliest words with this share", high=1.0)
    temperature: float = hp(1.0, "`generate_nucleus`: above 1 more varied, below 1 less", low=0.01)

    def __post_init__(self):
        super().__post_init__()
        if self.modalities.get(self.target) != "text" or len(self.modalities) < 2:
            raise ValueError(
                f"Expected target to be a text among the modalities {self.names} and another to write it from. "
                f"Received: target={self.target!r}."
            )
        self.refuse([self.target], ["attention"])
        if self.adversarial_weight and self.decoder != "lstm":
            raise ValueError(f"Expected decoder='lstm' with adversarial_weight. Received: {self.decoder!r}.")

    @property
    def sources(self):
        """Names of the modalities that are given."""
        return [name for name in self.names if name != self.target]

    @property
    def required(self):
        """Columns that every row must have."""
        return [self.target]


# What `zoo.load` may change: training does not know it.
OF_USE = ("decoding", "beam_width", "length_penalty", "nucleus", "temperature")
_BASE = {"image_encoder": "resnet", "image_grid": 6, "epochs": 12, "learning_rate": 2e-3, "batch_size": 32}
PRESETS = {
    "base": _BASE,
    "small": {
        **_BASE, "image_encoder": "cnn", "text_dim": 64, "width": 128, "batch_size": 64, "learning_rate": 3e-3,
        "epochs": 15,
    },
    "tiny": {**_inputs.TINY, "width": 16, "num_layers": 1, "num_heads": 2},
    "adversarial": {**_BASE, "adversarial_weight": 0.3, "optimizer": "adam"},
    "transformer": {**_BASE, "decoder": "transformer", "learning_rate": 1e-3},
}  # fmt: skip


def preprocess(config):
    return _inputs.preprocess(config)


def targets(config):
    return None


def augment(config):
    return _inputs.augment(config, config.sources)


def build(config):
    """Encoders, their memory, and the decoder, told the words before."""
    import keras

    from mmkeras import decoders, layers, training

    inputs = _inputs.inputs(config)
    memory, counts = _inputs.memory(config, inputs, config.sources, config.width)
    decoder = decoders.caption_decoder(
        memory.shape[1:], config.text_length, config.vocabulary_size, config.decoder, config.width, config.num_layers,
        config.num_heads, config.dropout, "decoder",
    )  # fmt: skip
    words = inputs[config.target]
    written = decoder({"words": words, "memory": memory, "counts": counts})
    if config.scheduled_sampling:
        sampling = layers.ScheduledSampling(config.scheduled_sampling, config.ramp, name="scheduled_sampling")
        words = sampling(words, written["logits"])
        written = decoder({"words": words, "memory": memory, "counts": counts})
    attention = keras.layers.Identity(name="attention")(written["attention"])
    outputs = {config.target: written["logits"], "attention": attention}
    if config.adversarial_weight:
        return training.AdversarialText(
            inputs, outputs, name="captioner", objective=objective(config), discriminator=_discriminator(config),
            target=config.target, weight=config.adversarial_weight, ramp=config.ramp,
        )  # fmt: skip
    return training.ObjectiveModel(inputs, outputs, name="captioner", objective=objective(config))


def _discriminator(config):
    """A model from the sources and words, one-hot or soft, to how well they belong together (Shetty 2017)."""
    import keras

    from mmkeras import layers

    given = _inputs.inputs(config)
    given.pop(config.target)
    memory, _ = _inputs.memory(config, given, config.sources, config.width)
    seen = keras.layers.Dense(config.width, name="seen")(layers.Pool("both", name="pool")(memory))
    words = keras.Input((config.text_length, config.vocabulary_size), name="words")
    read = keras.layers.Dense(config.width, use_bias=False, name="word_embedding")(words)
    read = keras.layers.Bidirectional(keras.layers.LSTM(config.width // 2), name="reader")(read)
    read = keras.layers.Dense(config.width, name="read")(read)
    logits = keras.ops.sum(seen * read, axis=-1) / config.width**0.5
    return keras.Model({**given, "words": words}, {"logits": logits}, name="discriminator")


def objective(config):
    """Cross-entropy of every word, from the memory and the true words before it (teacher forcing)."""
    from mmkeras.training import Objective, Reconstruction

    options = {"label_smoothing": config.label_smoothing}
    return Objective([Reconstruction("words", config.target, config.target, "tokens", options=options)], config.names)


def memory_of(config, model):
    """The part of the model before its decoder: from inputs to `{"memory", "counts"}`."""
    import keras

    memory, counts = model.get_layer("memory").output
    inputs = {name: model.input[name] for name in (*config.sources, "presence")}
    return keras.Model(inputs, {"memory": memory, "counts": counts})


def write(config, model, memory, decoding="beam", draws=None):
    """Token ids `(batch, texts, text_length)`, the best first, and their scores `(batch, texts)`.

    Args:
        memory: what `memory_of` gives.
        decoding: `"beam"`, `"greedy"`, or `"nucleus"`.
        draws: uniform numbers `(batch, text_length)` for `"nucleus"`.
    """
    import tensorflow as tf

    from mmkeras.decoders import word_by_word
    from mmkeras.export import beam_search, nucleus_sample

    width = config.beam_width if decoding == "beam" else 1
    repeated = {name: tf.repeat(value, width, axis=0) for name, value in memory.items()}
    logits_of, state = word_by_word(model.get_layer("decoder"), **repeated)
    if decoding == "nucleus":
        words, score = nucleus_sample(logits_of, state, draws, config.nucleus, config.temperature)
        return words[:, None], score[:, None]
    penalty = config.length_penalty if decoding == "beam" else 0.0
    return beam_search(logits_of, state, tf.shape(memory["memory"])[0], config.text_length, width, penalty)


def signatures(config, model, preprocessor):
    """`generate`: the best sentences and their scores; `generate_nucleus`: one drawn, the same for the same seed."""
    import tensorflow as tf

    from mmkeras.export import Signature, raw_specs

    reader, remember = preprocessor.reader(config.target), memory_of(config, model)

    def memory(raw):
        given = {name: raw[name] for name in config.sources}
        unwritten = tf.fill(tf.shape(given[config.sources[0]])[:1], "")
        x = preprocessor.inputs({**given, config.target: unwritten})
        return remember({name: x[name] for name in remember.input}, training=False)

    def answer(words, scores):
        flat = reader.texts(tf.reshape(words, (-1, config.text_length)))
        return {"sentences": tf.reshape(flat, tf.shape(scores)), "scores": scores}

    def generate(raw):
        return answer(*write(config, model, memory(raw), config.decoding))

    def generate_nucleus(raw):
        seeds = tf.stack([raw["seed"], tf.zeros_like(raw["seed"])], axis=-1)
        shape = (config.text_length,)
        draws = tf.map_fn(lambda s: tf.random.stateless_uniform(shape, s), seeds, fn_output_signature=tf.float32)
        return answer(*write(config, model, memory(raw), "nucleus", draws))

    specs = raw_specs(preprocessor, config.sources)
    seeded = {**specs, "seed": tf.TensorSpec((None,), tf.int64, name="seed")}
    result = {"generate": Signature(generate, specs), "generate_nucleus": Signature(generate_nucleus, seeded)}
    return {"serving_default": result["generate"], **result}


def evaluate(run, split):
    """BLEU, ROUGE-L, CIDEr and exact match of the written texts against all of a row's, and the perplexity of these.

    `given another row` is the control: the same decoder over the memory of the row before.
    """
    import numpy as np
    import tensorflow as tf

    config, model, reader = run.config, run.model, run.preprocessor.reader(run.config.target)
    remember = memory_of(config, model)
    compiled = tf.function(lambda memory: write(config, model, memory, config.decoding)[0][:, 0], autograph=False)
    titles = [f"{config.target} from {' and '.join(config.sources)}", "given another row"]
    said, loss, num_words = {title: [] for title in titles}, 0.0, 0
    for (x,) in run.batches(split):
        memory = remember({name: x[name] for name in remember.input}, training=False)
        other = {name: tf.roll(value, 1, axis=0) for name, value in memory.items()}
        for title, given in zip(titles, (memory, other), strict=True):
            said[title] += reader.texts(compiled(given)).numpy().tolist()
        logits, words = model(x, training=False)[config.target], x[config.target]
        real = tf.cast(words != 0, tf.float32)
        loss += float(tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(words, logits) * real))
        num_words += float(tf.reduce_sum(real))
    cells = [cell if isinstance(cell, list) else [cell] for cell in split.cells(config.target)]
    references = [_split(reader, texts) for texts in cells]
    report = {title: _compare(_split(reader, texts), references) for title, texts in said.items()}
    report[titles[0]]["perplexity"] = float(np.exp(loss / num_words))
    return report


def _split(reader, texts):
    """Texts as the reader splits them, a space between two tokens."""
    import tensorflow as tf

    joined = tf.strings.reduce_join(reader.split(tf.constant(texts)), axis=-1, separator=" ")
    return [text.decode() for text in joined.numpy()]


def _compare(hypotheses, references):
    from mmkeras import metrics

    return {
        **{f"bleu{n}": metrics.bleu(hypotheses, references, n) for n in (1, 2, 3, 4)},
        "rouge_l": metrics.rouge_l(hypotheses, references),
        "cider": metrics.cider(hypotheses, references),
        "exact_match": metrics.exact_match(hypotheses, references),
    }


def figures(run, split, num_rows=6, num_words=11):
    """`attention`: what was written, and where the decoder looked for each of its words."""
    import numpy as np

    from mmkeras import plots

    config = run.config
    rows = split.take(np.linspace(0, len(split) - 1, min(num_rows, len(split))).astype(int))
    x = next(iter(run.batches(rows, batch_size=num_rows)))[0]
    words, attention = written(run, x)
    texts = run.texts(config.target, words)
    pictures = config.of_kind("image")
    if not pictures:
        maps = [[np.repeat(np.repeat(row[..., None] / row.max(), 4, axis=0), 4, axis=1)] for row in attention]
        columns = {"written": [[text] for text in texts], "attention: words down, places across": maps}
        return {"attention": plots.table(columns, picture_inches=2.0)}
    cells = []
    for row, picture in enumerate(x[pictures[0]].numpy()):
        seen = looks(run, pictures[0], picture, words[row], attention[row])[:num_words]
        cells += [(picture, texts[row]), *seen, *[(np.ones_like(picture), "")] * (num_words - len(seen))]
    return {"attention": plots.grid(*zip(*cells, strict=True), columns=num_words + 1)}


def written(run, x):
    """Token ids `(batch, length)` written of a batch, and where the decoder looked, `(batch, length, places)`."""
    remember = memory_of(run.config, run.model)
    memory = remember({name: x[name] for name in remember.input}, training=False)
    words = write(run.config, run.model, memory, run.config.decoding)[0][:, 0]
    attention = run.model.get_layer("decoder")({"words": words, **memory}, training=False)["attention"]
    return words.numpy(), attention.numpy()


def looks(run, name, picture, words, attention):
    """`[(picture, bright where the decoder looked for a word; the word)]` of one row of what `written` gives."""
    from mmkeras import plots

    config, vocabulary = run.config, run.preprocessor.reader(run.config.target).vocabulary
    first = sum(_num_places(config, other) for other in config.sources[: config.sources.index(name)])
    grid = _inputs.encoder(config, name).get_layer("tokens").input.shape[1:3]
    shown = [i for i, word in enumerate(words) if word not in (0, 3)]  # neither padding nor the end
    maps = attention[shown, first : first + grid[0] * grid[1]].reshape(-1, *grid)
    return [(plots.overlay(picture, weights), vocabulary[words[i]]) for i, weights in zip(shown, maps, strict=True)]


def _num_places(config, name):
    """Tokens that a modality's encoder gives."""
    return _inputs.encoder(config, name).output_shape[1]
