"""Keras' weights in the networks of `zoo.bench._torch_models`."""

import re

import numpy as np
import torch
from torch import nn

from zoo.bench._torch_models import ConditionalGAN


def load(network, weights):
    """Gives a network the weights `{path: array}` of the Keras model that it is the like of.

    A layer that has a name of its own is found by it; those that Keras has numbered come in the order in which they
    were made, in which the modules here are made as well.
    """
    if isinstance(network, ConditionalGAN):
        for part in ("generator", "discriminator"):
            load(getattr(network, part), {p.partition(":")[2]: w for p, w in weights.items() if p.startswith(part)})
        network.discriminator.normalize()
        return
    by_name = {}
    for path in sorted({path.rpartition("/")[0] for path in weights}, key=_number):
        by_name.setdefault(_name(path), []).append(path)
    for name, module in network.named_modules():
        if any(True for _ in module.children()) or not any(True for _ in module.parameters(recurse=False)):
            continue
        own = name.rpartition(".")[2]
        path = by_name[own if own in by_name else NUMBERED[type(module)]].pop(0)
        arrays = {p.rpartition("/")[2]: array for p, array in weights.items() if p.rpartition("/")[0] == path}
        _fill(module, arrays, turned="image_encoder" in name)
    for name, parameter in network.named_parameters():
        own = name.rpartition(".")[2]
        if own in ("positions", "log_scale"):
            (array,) = (array for path, array in weights.items() if path.rpartition("/")[2].startswith(own))
            parameter.data.copy_(torch.from_numpy(array))


NUMBERED = {nn.Conv2d: "conv2d", nn.BatchNorm2d: "batch_normalization", nn.Linear: "dense", nn.LSTM: "lstm_cell"}


def _number(path):
    return [int(n) for n in re.findall(r"_(\d+)(?:/|$)", path)][-1:]


def _name(path):
    """The name of the layer at a path, without the number that Keras gives those that have none of their own."""
    for direction in ("forward_lstm", "backward_lstm"):
        if direction in path:
            return direction
    own = path.rpartition("/")[2]
    return own if re.fullmatch(r"(projection|gate)_\d", own) else re.sub(r"_\d+$", "", own)


def _fill(module, arrays, turned):
    values = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    if isinstance(module, nn.Conv2d):
        kernel = values.pop("kernel").permute(3, 2, 0, 1)
        values["weight"] = kernel.flip(2, 3) if turned else kernel
    elif isinstance(module, nn.Linear):
        values["weight"] = values.pop("kernel").T
    elif isinstance(module, nn.Embedding):
        values = {"weight": next(iter(values.values()))}
    elif isinstance(module, (nn.LSTM, nn.LSTMCell)):  # PyTorch has two biases, which are added: the second is zero
        end = "_l0" if isinstance(module, nn.LSTM) else ""
        kernel, recurrent, bias = values["kernel"].T, values["recurrent_kernel"].T, values["bias"]
        values = {"weight_ih": kernel, "weight_hh": recurrent, "bias_ih": bias, "bias_hh": torch.zeros_like(bias)}
        values = {name + end: value for name, value in values.items()}
    else:
        names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        values = {names[name]: value for name, value in values.items()}
        values |= {"num_batches_tracked": torch.tensor(0)} if isinstance(module, nn.BatchNorm2d) else {}
    module.load_state_dict(values)
