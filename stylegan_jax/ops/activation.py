# SPDX-License-Identifier: Apache-2.0
"""Bias, activation, gain and clamp, in that order, with the gains that keep unit variance."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Activation(NamedTuple):
    """A pointwise function and the gain that goes with it."""

    function: callable
    gain: float


ACTIVATIONS = {
    "linear": Activation(lambda x: x, 1.0),
    "relu": Activation(jax.nn.relu, math.sqrt(2)),
    "lrelu": Activation(lambda x: jnp.where(x >= 0, x, x * 0.2), math.sqrt(2)),
    "tanh": Activation(jnp.tanh, 1.0),
    "sigmoid": Activation(jax.nn.sigmoid, 1.0),
    "elu": Activation(jax.nn.elu, 1.0),
    "selu": Activation(jax.nn.selu, 1.0),
    "softplus": Activation(jax.nn.softplus, 1.0),
    "swish": Activation(lambda x: jax.nn.sigmoid(x) * x, math.sqrt(2)),
}


def find_activation(name: str) -> Activation:
    """Returns the activation called `name`; raises ValueError naming the known ones."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def bias_act(
    x: Array, bias: Array | None = None, *, activation: str = "linear", gain: float = 1.0, clamp: float | None = None
) -> Array:
    """Returns `clip(activation(x + bias) * activation_gain * gain, +-clamp * gain)`.

    Args:
        x: `[..., c]`.
        bias: `[c]` or None.
        activation: a key of `ACTIVATIONS`.
        gain: factor on the result; it scales the clamp too.
        clamp: largest magnitude before `gain`, or None.

    Returns:
        An array like `x`.
    """
    function, activation_gain = find_activation(activation)
    if bias is not None:
        x = x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    x = function(x)
    if activation_gain * gain != 1.0:
        x = x * (activation_gain * gain)
    if clamp is not None:
        x = jnp.clip(x, -clamp * gain, clamp * gain)
    return x
