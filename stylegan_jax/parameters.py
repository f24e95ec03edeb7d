# SPDX-License-Identifier: Apache-2.0
"""Networks as flat dictionaries of arrays, `{"synthesis/b64/conv0/weight": [3, 3, in, out], ...}`, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat.update(_flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value})
    return flat


def _unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


class _SameKey:
    """Stands for `nnx.Rngs` where only shapes are wanted: those would note for every draw where it happened, which
    takes longer than all the rest."""

    def params(self) -> Array:
        return jax.random.key(0)


def to_arrays(network: nnx.Module) -> dict[str, Array]:
    """Returns every weight and buffer of `network` by its flat name."""
    return _flatten(nnx.to_pure_dict(nnx.state(network)))


def trainable(network: nnx.Module) -> dict[str, Array]:
    """Returns every weight of `network` that training changes, by its flat name; buffers are not among them."""
    return _flatten(nnx.to_pure_dict(nnx.state(network, nnx.Param)))


def replaced(network: nnx.Module, arrays: Mapping[str, Array]) -> nnx.Module:
    """Returns a network like `network` with the arrays that are given, by flat name, in place of its own.

    Raises:
        ValueError: for a name that it does not have, or another shape.
    """
    graph, state = nnx.split(network)
    flat = _flatten(nnx.to_pure_dict(state))
    for name, array in arrays.items():
        if name not in flat or flat[name].shape != array.shape:
            expected = list(flat[name].shape) if name in flat else "no such array"
            raise ValueError(f"weight {name}: got {list(array.shape)}, the network has {expected}")
    nnx.replace_by_pure_dict(state, _unflatten(flat | dict(arrays)))
    return nnx.merge(graph, state)


def abstract(kind: type[nnx.Module], config: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the names, shapes and dtypes that a network of this kind and config holds, without any memory."""
    network = nnx.eval_shape(lambda: kind(config, rngs=_SameKey()))
    return to_arrays(network)


def fill(kind: type[nnx.Module], config: Any, arrays: Mapping[str, Array]) -> nnx.Module:
    """Returns the network of this kind and config that holds `arrays`.

    Floating-point arrays keep their width (float64 stays float64 where JAX is set to it).

    Args:
        kind: a network class built as `kind(config, rngs=...)`.
        config: its config.
        arrays: flat names to arrays; exactly those that `abstract` names.

    Raises:
        ValueError: naming what is missing, unexpected or of another shape.
    """
    network = nnx.eval_shape(lambda: kind(config, rngs=_SameKey()))
    graph, state = nnx.split(network)
    expected = _flatten(nnx.to_pure_dict(state))
    problems = [f"missing {name}" for name in expected if name not in arrays]
    problems += [f"unexpected {name}" for name in arrays if name not in expected]
    problems += [
        f"{name} is {list(arrays[name].shape)}, expected {list(struct.shape)}"
        for name, struct in expected.items()
        if name in arrays and tuple(arrays[name].shape) != tuple(struct.shape)
    ]
    if problems:
        shown = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise ValueError(f"arrays do not fit this {kind.__name__}: {shown}")
    nnx.replace_by_pure_dict(state, _unflatten({name: jnp.asarray(arrays[name]) for name in expected}))
    return nnx.merge(graph, state)
