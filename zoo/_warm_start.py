"""Encoders that begin with what other runs have learned."""


def warm_start_encoders(run, others):
    """Gives each encoder of a run the weights of that of the same name, and of the same words if a text's.

    Args:
        run: the Run about to be trained.
        others: trained Runs, of which the first counts that has a like encoder.

    Returns:
        A line that says which encoders begin with whose weights, and why others do not.

    Raises:
        ValueError: if none does, or one that is frozen does not.
    """
    taken, left = {}, {}
    for name in run.config.names:
        reasons = [_unlike(run, other, name) for other in others]
        if None in reasons:
            taken[name] = others[reasons.index(None)]
        else:
            left[name] = "; ".join(dict.fromkeys(reasons))
    why = ", ".join(f"`{name}` ({reason})" for name, reason in left.items())
    if not taken or set(left) & set(run.config.freeze):
        what = "Not every frozen" if taken else "No"
        called = " or ".join(other.called for other in others)
        raise ValueError(f"{what} encoder can begin with the weights of {called}: {why}.")
    for name, other in taken.items():
        run.model.get_layer(f"{name}_encoder").set_weights(other.model.get_layer(f"{name}_encoder").get_weights())
    of = {o.called: ", ".join(f"`{n}`" for n, other in taken.items() if other is o) for o in taken.values()}
    said = f"Encoders that begin with the weights {'; '.join(f'of {o}: {names}' for o, names in of.items())}."
    return f"{said} Not: {why}." if left else said


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
