"""The models by name: every file of this folder whose name does not begin with an underscore."""

import dataclasses
import re
import textwrap
import typing

from zoo import _weights, protocols
from zoo._config import check_names, did_you_mean, type_name
from zoo._folder import module_of, names_in

if typing.TYPE_CHECKING:  # `zoo --help` does not wait for them
    import keras

    from mmkeras.data import Preprocessor


def names() -> list[str]:
    """Names of all models.

    Example:

    >>> "autoencoder" in names()
    True
    """
    return names_in(__file__)


def module(name):
    """The module of a model.

    Raises:
        ValueError: if there is no such model.
    """
    return module_of("zoo", names(), name, "model", "The zoo has")


def configure(name, preset="base", **hyperparameters):
    """The Config of a model: a preset, changed by some hyperparameters.

    Raises:
        ValueError: on an unknown model, preset or hyperparameter, or an invalid value.
    """
    model = module(name)
    if preset not in model.PRESETS:
        raise ValueError(
            f"Unknown preset `{preset}` of `{name}`.{did_you_mean(preset, model.PRESETS)} "
            f"It has: {', '.join(model.PRESETS)}."
        )
    check_names(name, hyperparameters, model.Config)
    return model.Config(**{**model.PRESETS[preset], **hyperparameters})


def build(name: str, preset: str = "base", weights: str | None = None, **hyperparameters: typing.Any) -> "keras.Model":
    """A compiled model.

    Args:
        name: one of `zoo.names()`.
        preset: a named set of hyperparameters: `"base"`, `"tiny"`, or the paper's.
        weights: name of trained weights that come with the zoo, `"scenes"`, which have their own hyperparameters.
        **hyperparameters: changes to it, see `zoo.describe(name)`.

    Returns:
        A compiled `keras.Model` whose inputs are a dict by modality.

    Raises:
        ValueError: on an unknown model, preset or hyperparameter, or an invalid value.

    Example:

    >>> model = build("fusion_classifier", preset="tiny", fusion="concat")
    >>> model.output["label"].shape
    (None, 3)
    """
    from zoo import _classes  # noqa: F401  # so that Keras can load again what is built here

    if weights is not None:
        return _trained(name, weights, preset, hyperparameters).model
    config = configure(name, preset, **hyperparameters)
    model = build_model(module(name), config)
    compile_model(module(name), model, config)
    return model


def build_model(model_module, config):
    """The model of a configuration, not compiled.

    Raises:
        ValueError: if a modality has the name of a layer.
    """
    try:
        return model_module.build(config)
    except ValueError as error:
        taken = re.search(r'The name "(.+?)" is used \d+ times', str(error))
        if taken is None:
            raise
        raise ValueError(
            f"Two layers would be called `{taken[1]}`. Give the modalities other names: {config.modalities}."
        ) from None


def compile_model(model_module, model, config, steps=None, **options):
    """Compiles a model as its file says; `steps` is the number of training steps, where it is known.

    Further options are those of `keras.Model.compile`.
    """
    import keras

    from mmkeras.training import make_optimizer

    optimizer = make_optimizer(
        config.optimizer, config.learning_rate, config.weight_decay, config.clip_norm, config.schedule, config.warmup,
        steps, getattr(config, "beta_1", 0.9),
    )  # fmt: skip
    objective = model_module.objective(config)
    # On a CPU TensorFlow trains these networks no faster with XLA, after a minute of compiling; JAX needs it.
    jit = "auto" if keras.backend.backend() != "tensorflow" else False
    options = {"jit_compile": jit, **(objective if isinstance(objective, dict) else {}), **options}
    model.compile(optimizer=optimizer, **options)


def _trained(name, weights, preset, hyperparameters):
    from zoo import _run  # late: it needs TensorFlow

    if preset != "base" or hyperparameters:
        given = ", ".join(hyperparameters) or f"preset={preset!r}"
        raise ValueError(
            f"The weights `{name}:{weights}` have hyperparameters of their own: leave out what was given, {given}."
        )
    return _run.load(f"{name}:{weights}")


def preprocessor(
    name: str, preset: str = "base", weights: str | None = None, **hyperparameters: typing.Any
) -> "Preprocessor":
    """The Preprocessor of a model, to be fitted with `mmkeras.data.adapt`; that of trained weights is fitted.

    Args:
        name, preset, weights, **hyperparameters: as for `zoo.build`.

    Returns:
        A `mmkeras.data.Preprocessor`.

    Example:

    >>> preprocessor("autoencoder", preset="tiny").input_names
    ['image', 'text']
    """
    if weights is not None:
        return _trained(name, weights, preset, hyperparameters).preprocessor
    config = configure(name, preset, **hyperparameters)
    return make_preprocessor(module(name), config)


def make_preprocessor(model_module, config):
    """The unfitted Preprocessor of a configuration."""
    from mmkeras.data import Preprocessor

    return Preprocessor(
        model_module.preprocess(config),
        model_module.targets(config),
        model_module.augment(config),
        config.vocabulary_size,
    )


def describe(name: str) -> str:
    """What a model is, its presets and hyperparameters, as text.

    Example:

    >>> print(describe("autoencoder").splitlines()[0])
    autoencoder: Autoencoder with one embedding shared by all modalities.
    """
    model = module(name)
    title, _, text = model.__doc__.strip().partition("\n")
    lines = [f"{name}: {title}", text.rstrip(), "", "Presets"]
    for preset, changes in model.PRESETS.items():
        said = ", ".join(f"{key}={value}" for key, value in changes.items() if preset != "base") or "the values below"
        lines += textwrap.wrap(f"{preset}: {said}", 118, initial_indent="  ", subsequent_indent="    ")
    lines += ["", "Hyperparameters (name, value in `base`, what it is)"]
    hints = typing.get_type_hints(model.Config)
    for field, default in defaults(model):
        choices = field.metadata["choices"]
        kind = ", ".join(map(str, choices)) if choices else type_name(hints[field.name])
        lines.append(f"  {field.name:22} {written(default):24} {field.metadata['help']} ({kind})")
    for weights in _weights.names(name):
        lines += [
            "",
            f'Trained weights: zoo.load("{weights}"), or build("{name}", weights="{weights.partition(":")[2]}")',
        ]
    for result in protocols.shipped().values():
        if result["model"] == name:
            lines += ["", *_reached(result)]
    return "\n".join(lines)


def _reached(result):
    """What a protocol's file says, a line a figure."""
    yield f"Reached by `zoo reproduce {result['protocol']}`, mean ± deviation of {result['seeds']} trainings"
    for row, one in result["rows"].items():
        said = f", published {one['published']} ({one['source']})" if one["published"] else ""
        yield f"  {row}, {one['unit']}: {protocols.ours(one)}{said}"


def defaults(model):
    """(field, value in the preset `base`) of every hyperparameter of a model's module, its own fields first."""
    own = model.Config.__annotations__
    base = model.Config(**model.PRESETS["base"])
    for field in sorted(dataclasses.fields(model.Config), key=lambda f: f.name not in own):
        yield field, getattr(base, field.name)


def written(value):
    """A value as it is written on the command line."""
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items()) or "none"
    if isinstance(value, (tuple, list)):
        separator = "," if any(isinstance(v, str) for v in value) else "x"
        return separator.join(map(str, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
