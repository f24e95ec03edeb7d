# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules and optimisers, cached so that equal settings compile once."""

import functools

import jax.numpy as jnp
import optax


@functools.cache
def warmup_cosine(lr: float, steps: int, *, warmup: float = 0.05, decay: float = 0.25) -> optax.Schedule:
    """Returns the schedule of NVlabs' projector (Karras et al. 2020, appendix D).

    `lr(t) = lr * min(1, t / warmup) * (1 - cos(pi min(1, (1 - t) / decay))) / 2` with `t = step / steps`.

    Args:
        lr: largest learning rate.
        steps: length of the phase.
        warmup: share of the steps over which the rate rises linearly from 0.
        decay: share of the steps over which it falls along a cosine to 0.
    """
    if steps < 1 or not lr > 0 or not 0 <= warmup < 1 or not 0 <= decay <= 1:
        raise ValueError(f"need steps >= 1, lr > 0, warmup and decay in [0, 1), got {steps}, {lr}, {warmup}, {decay}")

    def schedule(step):
        # In the type of computations in general: in float64 runs, float32 would be rounded by each program in its way.
        t = jnp.asarray(step, jnp.result_type(float)) / steps
        rate = jnp.minimum(1.0, (1.0 - t) / decay) if decay else jnp.ones(())
        rate = 0.5 - 0.5 * jnp.cos(jnp.pi * rate)
        return lr * rate * (jnp.minimum(1.0, t / warmup) if warmup else 1.0)

    return schedule


@functools.cache
def one_cycle_drop(lr: float, steps: int) -> optax.Schedule:
    """Returns PULSE's schedule: up and down along lines for nine tenths of the steps, then down to a thousandth.

    `lr (9 (1 - |2 t / 0.9 - 1|) + 1) / 10` for t < 0.9, then on a line from `lr / 10` to `lr / 1000` (Menon et al.
    2020, their published code).
    """
    if steps < 1 or not lr > 0:
        raise ValueError(f"need steps >= 1 and lr > 0, got {steps} and {lr}")

    def schedule(step):
        t = jnp.asarray(step, jnp.result_type(float)) / steps
        cycle = (9 * (1 - jnp.abs(2 * t / 0.9 - 1)) + 1) / 10
        drop = 0.1 - (t - 0.9) / 0.1 * (0.1 - 0.001)
        return lr * jnp.where(t < 0.9, cycle, drop)

    return schedule


@functools.cache
def scheduled_adam(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns Adam (betas 0.9, 0.999) under a schedule of this module."""
    return optax.adam(schedule)


@functools.cache
def constant_adam(lr: float) -> optax.GradientTransformation:
    """Returns Adam (betas 0.9, 0.999) at one learning rate."""
    return optax.adam(lr)


@functools.cache
def sgd(lr: float) -> optax.GradientTransformation:
    """Returns plain gradient descent at one learning rate."""
    return optax.sgd(lr)


@functools.cache
def still() -> optax.GradientTransformation:
    """Returns the optimiser of what stays as it is."""
    return optax.set_to_zero()


@functools.cache
def chained(*steps: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the transformations one after the other, equal ones once."""
    return optax.chain(*steps)


@functools.cache
def adam(lr: float, steps: int) -> optax.GradientTransformation:
    """Returns Adam (betas 0.9, 0.999) under `warmup_cosine(lr, steps)`."""
    return optax.adam(warmup_cosine(lr, steps))
