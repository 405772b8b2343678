"""Models that give every modality back from one latent: their signatures, report and figure."""

import itertools


def signatures(config, model, preprocessor):
    """`serving_default` reconstructs, `encode` and `encode_<input>` embed, `decode` goes back from an embedding."""
    import tensorflow as tf

    from mmkeras.export import Signature, encode_signature, raw_specs, readable, submodel

    readers = {name: preprocessor.reader(name) for name in config.names}
    encoder = submodel(model, model.input, ["embedding"])  # without what only training asks for
    whole = submodel(model, model.input, [*config.names, "embedding"])

    def reconstruct(raw):
        outputs = whole(preprocessor.inputs(raw), training=False)
        return {**readable(config.modalities, outputs, readers), "embedding": outputs["embedding"]}

    def encode(raw):
        return {"embedding": encoder(preprocessor.inputs(raw), training=False)["embedding"]}

    def decode(raw):
        outputs = {name: model.get_layer(f"{name}_decoder")(raw["embedding"]) for name in config.names}
        return readable(config.modalities, outputs, readers)

    specs = raw_specs(preprocessor)
    embedding = tf.TensorSpec((None, config.embedding_dim), tf.float32, name="embedding")
    return {
        "serving_default": Signature(reconstruct, specs),
        "encode": Signature(encode, specs),
        **{f"encode_{name}": encode_signature(preprocessor, model, name) for name in config.names},
        "decode": Signature(decode, {"embedding": embedding}),
    }


def report(run, split):
    """Reconstruction of every modality from every subset of them: `{"text from image": {"exact_match": …}}`.

    Pictures: mean squared error, beside that of the mean picture of the split. Texts: share of the tokens that are
    right, of the texts that are exactly right, BLEU-4. Vectors: mean squared error.
    """
    import numpy as np

    config, names = run.config, run.config.names
    results, seen = {}, {}
    subsets = [s for n in range(1, len(names) + 1) for s in itertools.combinations(names, n)]
    for x, *_ in run.batches(split):
        seen.setdefault("presence", []).append(x["presence"].numpy())
        for name in names:
            seen.setdefault(name, []).append(x[name].numpy())
        for subset in subsets:
            mask = np.array([name in subset for name in names], "float32")
            outputs = run.outputs({**x, "presence": x["presence"] * mask})
            for name in names:
                value = outputs[name].numpy()
                value = value.argmax(-1) if config.modalities[name] == "text" else value
                results.setdefault((name, subset), []).append(value)
    seen = {name: np.concatenate(parts) for name, parts in seen.items()}
    report = {}
    for (name, subset), parts in results.items():
        given = [names.index(other) for other in {name, *subset}]
        rows = (seen["presence"][:, given] > 0).all(axis=1)
        if rows.any():
            value, true = np.concatenate(parts)[rows], seen[name][rows]
            report[f"{name} from {' and '.join(subset)}"] = run.compare(name, true, value)
    return report


def figures(run, split, num_rows=8):
    """`reconstructions`: inputs beside reconstructions from all, and from each modality alone."""
    import numpy as np

    from mmkeras import plots

    names = run.config.names
    x = next(iter(run.batches(split, batch_size=num_rows)))[0]
    masks = {"all": np.ones(len(names))}
    if len(names) > 1:
        masks.update({name: np.array([other == name for other in names]) for name in names})
    columns = {"input": run.show(x)}
    for given, mask in masks.items():
        outputs = run.outputs({**x, "presence": x["presence"] * mask.astype("float32")})
        columns[f"from {given}"] = run.show(outputs, decoded=True)
    return {"reconstructions": plots.table(columns)}
