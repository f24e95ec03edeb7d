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
        t = jnp.asarray(step, jnp.float32) / steps
        rate = jnp.minimum(1.0, (1.0 - t) / decay) if decay else jnp.ones(())
        rate = 0.5 - 0.5 * jnp.cos(jnp.pi * rate)
        return lr * rate * (jnp.minimum(1.0, t / warmup) if warmup else 1.0)

    return schedule


@functools.cache
def adam(lr: float, steps: int) -> optax.GradientTransformation:
    """Returns Adam (betas 0.9, 0.999) under `warmup_cosine(lr, steps)`."""
    return optax.adam(warmup_cosine(lr, steps))
