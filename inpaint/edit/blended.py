# SPDX-License-Identifier: Apache-2.0
"""What lies between the results of searches, in whatever space, and what heads make of other draws.

Variables are those of `inpaint.Result.variables`, of one start; images are `[n, h, w, c]`, unclipped.
"""

import jax
import jax.numpy as jnp
from jax import Array

import stylegan_jax as sg
from stylegan_jax import joint, latents
from stylegan_jax.latents import Inputs, Space, Variable


def _host(key: Array, generator: sg.Generator, c: Array | None, noise: str) -> latents.Host:
    return latents.Host(generator, c, key, None, noise)


def redraw(
    key: Array,
    generator: sg.Generator,
    space: Space,
    v: Variable,
    *,
    count: int = 16,
    c: Array | None = None,
    noise: str = "const",
) -> Array:
    """Returns the images that a variable gives for `count` fresh draws: all alike, if it has learned to be (SPHInX).

    Args:
        key: of the draws.
        generator: that was searched.
        space: of the variable; one without draws gives one image `count` times.
        v: variable.
        count: images.
        c: label `[c_dim]` of a conditional generator.
        noise: what noise inputs get that the variable does not name, "const" or "none".
    """

    def one(key: Array) -> Array:
        inputs = space.to_inputs(_host(key, generator, c, noise), v)
        return latents.render(generator, inputs, noise=noise)

    return jax.lax.map(one, jax.random.split(key, count))


def _between(one: Inputs, other: Inputs, t: Array) -> Inputs:
    if jax.tree.structure(one) != jax.tree.structure(other):
        raise ValueError("only results that give the same things to the generator can be interpolated")
    return jax.tree.map(lambda a, b: (1 - t) * a + t * b, one, other)


def interpolate(
    key: Array,
    generator: sg.Generator,
    space: Space,
    v: Variable,
    other: Variable,
    shares: Array,
    *,
    c: Array | None = None,
    noise: str = "const",
) -> Array:
    """Returns the images between two results, as lines through all that the generator gets: latents, content, noise.

    Args:
        key: of the draw, one for both ends.
        generator: that was searched.
        space: of both variables.
        v, other: variables, seen at shares 0 and 1.
        shares: how much of `other` there is in every image, `[n]`.
        c: label `[c_dim]` of a conditional generator.
        noise: what noise inputs get that the variables do not name, "const" or "none".

    Raises:
        ValueError: where the two give different things to the generator.
    """
    host = _host(key, generator, c, noise)
    ends = space.to_inputs(host, v), space.to_inputs(host, other)
    return jax.lax.map(
        lambda t: latents.render(generator, _between(*ends, t), noise=noise), jnp.asarray(shares, generator.dtype)
    )


def walk(
    key: Array,
    generator: sg.Generator,
    space: Space,
    v: Variable,
    *,
    between: int = 2,
    c: Array | None = None,
    noise: str = "const",
) -> tuple[Array, Array]:
    """Returns the images along a walk that was searched (`stylegan_jax.joint.Walk`), and their distances `[n]`.

    Args:
        key: of the draw.
        generator: that was searched.
        space: of the variable.
        v: variable.
        between: steps from one view to the next; published 2.
        c: label `[c_dim]` of a conditional generator.
        noise: what noise inputs get that the variable does not name, "const" or "none".

    Raises:
        ValueError: where the variable has no walk.
    """
    inputs = space.to_inputs(_host(key, generator, c, noise), v)
    if inputs.walk is None:
        raise ValueError(f"the space {space.name} has no walk")
    ends = jnp.concatenate([jnp.zeros(1, generator.dtype), inputs.walk["distances"]])
    last = (len(ends) - 1) * between
    distances = jnp.interp(jnp.arange(last + 1) / between, jnp.arange(len(ends)), ends)
    images = jax.lax.map(
        lambda ws: latents.render(generator, inputs._replace(ws=ws), noise=noise), joint.walked(inputs, distances)
    )
    return images, distances
