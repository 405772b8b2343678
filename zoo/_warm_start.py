"""Encoders that begin with what another run has learned."""


def warm_start_encoders(run, other):
    """Gives a run's encoders the weights of another run's: those of the same name, and of the same words if a text's.

    Args:
        run: the Run about to be trained.
        other: the trained Run.

    Returns:
        A line that says which encoders begin with the other's weights, and why others do not.

    Raises:
        ValueError: if none does, or one that is frozen does not.
    """
    reasons = {name: _unlike(run, other, name) for name in run.config.names}
    taken = [f"`{name}`" for name, why in reasons.items() if why is None]
    left = ", ".join(f"`{name}` ({why})" for name, why in reasons.items() if why)
    if not taken or any(reasons[name] for name in run.config.freeze):
        what = "Not every frozen" if taken else "No"
        raise ValueError(f"{what} encoder can begin with the weights of {other.called}: {left}.")
    for name, why in reasons.items():
        if why is None:
            weights = other.model.get_layer(f"{name}_encoder").get_weights()
            run.model.get_layer(f"{name}_encoder").set_weights(weights)
    said = f"Encoders that begin with the weights of {other.called}: {', '.join(taken)}."
    return f"{said} Not: {left}." if left else said


def _unlike(run, other, name):
    """Why a modality's encoder cannot take the weights of another run's; or None."""
    kind, layer = run.config.modalities[name], f"{name}_encoder"
    if other.config.modalities.get(name) != kind:
        return f"the other run has no {kind} of that name"
    for each in (run, other):
        if layer not in {one.name for one in each.model.layers}:
            return f"{each.name} has no encoder for it"
    if kind == "text" and len({tuple(each.preprocessor.reader(name).vocabulary) for each in (run, other)}) > 1:
        return "its vocabulary is another"
    shapes = [[weight.shape for weight in each.model.get_layer(layer).weights] for each in (run, other)]
    return None if shapes[0] == shapes[1] else "its encoder is another"
