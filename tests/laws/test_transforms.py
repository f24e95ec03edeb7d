# SPDX-License-Identifier: Apache-2.0
"""Laws of the steps that published methods take, and of the sets that they put variables back onto."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inpaint.search import schedule, transforms


def step(transform, v, gradient, *, times=1):
    """Returns the variable after steps along a constant gradient."""
    state = transform.init(v)
    for _ in range(times):
        updates, state = transform.update(gradient, state, v)
        v = optax.apply_updates(v, updates)
    return v


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


RETRACTIONS = {
    "sphere": (
        lambda: transforms.on_sphere(),
        (3, 7),
        lambda x, v: np.abs(np.linalg.norm(x, axis=-1) - radius(v)).max(),
    ),
    "sphere of maps": (
        lambda: transforms.on_sphere(axes=2),
        (6, 6),
        lambda x, v: abs(np.linalg.norm(x) - np.linalg.norm(v)),
    ),
    "standardized": (
        lambda: transforms.standardized_maps(),
        (6, 6),
        lambda x, v: abs(x.mean()) + abs((x**2).mean() - 1),
    ),
    "clipped": (lambda: transforms.clipped(-0.5, 0.25), (5,), lambda x, v: max(0.0, -0.5 - x.min(), x.max() - 0.25)),
    "l1 ball": (lambda: transforms.within_l1_ball(1.5), (4, 5), lambda x, v: max(0.0, np.abs(x - v).sum() - 1.5)),
}


def radius(v):
    return np.linalg.norm(v, axis=-1)


@pytest.mark.parametrize("name", RETRACTIONS)
def test_steps_end_on_the_set(name, x64):
    """After one step and after fifty the variable is on the set; a step along no gradient leaves it there."""
    make, shape, off = RETRACTIONS[name]
    v, gradient = normal(0, *shape), normal(1, *shape)
    if name in ("standardized", "clipped"):
        v = step(make(), v, jnp.zeros(shape))  # which does not begin on it
    chain = optax.chain(optax.adam(0.3), make())
    for times in (1, 50):
        moved = np.asarray(step(chain, v, gradient, times=times))
        assert off(moved, np.asarray(v)) < 1e-12 and np.abs(moved - v).max() > 0.01
    np.testing.assert_allclose(step(make(), v, jnp.zeros(shape)), v, rtol=0, atol=1e-15)


def test_radii_stay_in_float32():
    """Fifty steps of float32 on a sphere of 512 dimensions keep the radius to 1e-5."""
    v = normal(0, 18, 512)
    moved = step(optax.chain(optax.adam(0.4), transforms.on_sphere()), v, normal(1, 18, 512), times=50)
    np.testing.assert_allclose(radius(np.asarray(moved)), radius(np.asarray(v)), rtol=1e-5)


def test_the_nearest_point_is_found(x64):
    """Projections onto sphere and box end at the point of the set that is nearest to where the step led."""
    v, gradient = normal(0, 3, 7), normal(1, 3, 7)
    target = v - 0.5 * gradient
    on_sphere = step(optax.chain(optax.sgd(0.5), transforms.on_sphere()), v, gradient)
    expected = target / jnp.linalg.norm(target, axis=-1, keepdims=True) * jnp.linalg.norm(v, axis=-1, keepdims=True)
    np.testing.assert_allclose(on_sphere, expected, rtol=1e-12)
    boxed = step(optax.chain(optax.sgd(0.5), transforms.clipped(-0.1, 0.2)), v, gradient)
    np.testing.assert_allclose(boxed, np.clip(target, -0.1, 0.2), atol=1e-15)


@pytest.mark.parametrize("size", [0.3, 3.0, 30.0])
def test_l1_ball(size, x64):
    """The projection meets the threshold that bisection finds; inside the ball nothing moves."""
    x = np.asarray(normal(2, 4, 6)) * 2
    found = np.asarray(transforms.onto_l1_ball(jnp.asarray(x), size))
    low, high = 0.0, np.abs(x).max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(np.abs(x) - middle, 0).sum() > size else (low, middle)
    expected = x if np.abs(x).sum() <= size else np.sign(x) * np.maximum(np.abs(x) - high, 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.abs(found).sum() <= size * (1 + 1e-12)


def test_l1_ball_needs_a_radius():
    """A radius of 0 is refused."""
    with pytest.raises(ValueError, match="the radius of an L1 ball must be above 0, got 0"):
        transforms.within_l1_ball(0)


def test_steps_of_one_length(x64):
    """Every row moves by exactly the learning rate, whatever its gradient; one without a gradient, or with none that is
    finite, stays."""
    gradient = normal(1, 5, 8) * jnp.asarray([1e-8, 1.0, 1e8, 0.0, jnp.nan])[:, None]
    moved = np.asarray(step(transforms.normalized_gradient(0.08), jnp.zeros((5, 8)), gradient))
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), [0.08, 0.08, 0.08, 0, 0], rtol=1e-12)
    cosine = -(moved[:3] * np.asarray(gradient[:3])).sum(1) / 0.08 / np.linalg.norm(gradient[:3], axis=1)
    np.testing.assert_allclose(cosine, 1, rtol=1e-12)


def test_parts_have_their_own_steps(x64):
    """Named parts of a joint variable have their optimiser, the others the default; equal settings are one object."""
    v = {"latents": normal(0, 3, 4), "noise": {"b4/conv1": normal(1, 4, 4)}, "features:b8": normal(2, 8, 8, 2)}
    make = functools.partial(transforms.by_part, schedule.sgd(0.5))
    parts = {
        "noise": schedule.chained(schedule.sgd(0.1), transforms.standardized_maps()),
        "features:b8": schedule.still(),
    }
    moved = step(make(parts), v, jax.tree.map(jnp.ones_like, v))
    np.testing.assert_allclose(moved["latents"], v["latents"] - 0.5, atol=1e-15)
    np.testing.assert_array_equal(moved["features:b8"], v["features:b8"])
    np.testing.assert_allclose(
        moved["noise"]["b4/conv1"], transforms.standardized(v["noise"]["b4/conv1"] - 0.1), atol=1e-12
    )
    assert make(parts) is make(dict(parts)) and make(parts) is not make({})


def test_schedules(x64):
    """The rates that the published projector and PULSE have at known times."""
    ramp = schedule.warmup_cosine(1.0, 1000)
    np.testing.assert_allclose([ramp(t) for t in (0, 25, 50, 500, 900, 1000)], [0, 0.5, 1, 1, 0.3455, 0], atol=1e-4)
    drop = schedule.one_cycle_drop(0.4, 100)
    np.testing.assert_allclose([drop(t) for t in (0, 45, 90, 100)], [0.04, 0.4, 0.04, 0.0004], atol=1e-12)
    with pytest.raises(ValueError, match="need steps >= 1 and lr > 0, got 0 and 0.4"):
        schedule.one_cycle_drop(0.4, 0)


def test_what_is_held_stays_near(x64):
    """The gradient is that of the penalty, from where the variable began; nothing moves where nothing else pulls."""
    v, target, weight = normal(0, 4, 5), normal(1, 4, 5), 0.7
    chain = optax.chain(transforms.held(weight), optax.sgd(0.2))
    np.testing.assert_array_equal(step(chain, v, jnp.zeros_like(v), times=3), v)

    def objective(x):
        return jnp.sum(jnp.square(x - target)) + weight * jnp.sum(jnp.square(x - v)) / jnp.sum(jnp.square(v))

    state, moved, other = chain.init(v), v, v
    for _ in range(200):
        updates, state = chain.update(2 * (moved - target), state, moved)
        moved, other = moved + updates, other - 0.2 * jax.grad(objective)(other)
    np.testing.assert_allclose(moved, other, rtol=0, atol=1e-12)
    share = weight / jnp.sum(jnp.square(v))
    np.testing.assert_allclose(moved, (target + share * v) / (1 + share), rtol=0, atol=1e-12)


def test_holding_needs_a_weight():
    """A weight of 0 is refused."""
    with pytest.raises(ValueError, match="the weight that holds a variable must be above 0, got 0"):
        transforms.held(0)
