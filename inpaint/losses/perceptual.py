# SPDX-License-Identifier: Apache-2.0
"""Distances in the features of a network, for images of which only a part is known.

Networks look at whole images, so something must stand in the hole of both. These practices are known:

- `zero`: 0 in both (Zhu et al. 2020, "In-domain GAN inversion"; Daras et al. 2021, "ILO", its mask option);
- `white`: white in both (Marinescu et al. 2020, "BRGM");
- `fill`: the prediction's own pixels in the target (Daras et al. 2021);
- `noise`: the same noise in both (Poirier-Ginter and Lalonde 2023, "Robust Unsupervised StyleGAN Image Restoration").

Images are `[h, w, c]` in about [-1, 1], `known` `[h, w]` in [0, 1].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

PRACTICES = ("fill", "zero", "white", "noise")


def masked_pair(prediction: Array, target: Array, known: Array, *, practice: str = "fill") -> tuple[Array, Array]:
    """Returns prediction and target as networks should see them, `[h, w, c]` each.

    Args:
        prediction: a render.
        target: the measurement; what it holds in the hole is not looked at.
        known: 1 = compare; values between are blended.
        practice: what stands in the hole of both, one of `PRACTICES`.

    Raises:
        ValueError: for an unknown practice.
    """
    weight = known[..., None].astype(prediction.dtype)
    target = jnp.where(weight > 0, target, jnp.zeros((), target.dtype))
    if practice == "fill":
        return prediction, weight * target + (1 - weight) * prediction
    if practice == "zero":
        filling = jnp.zeros_like(prediction)
    elif practice == "white":
        filling = jnp.ones_like(prediction)
    elif practice == "noise":
        # Always the same noise, so that an objective is a function of its variable alone.
        noise = jax.random.normal(jax.random.key(0), prediction.shape, prediction.dtype)
        filling = jnp.clip(noise, -1, 1)
    else:
        raise ValueError(f"unknown practice {practice!r}; known: {', '.join(PRACTICES)}")
    return weight * prediction + (1 - weight) * filling, weight * target + (1 - weight) * filling


def adversarial(discriminator: Callable[[Array], Array], image: Array) -> Array:
    """Returns `softplus(-D(image))`, small where the discriminator takes `image` `[h, w, c]` for a real one.

    `-log D` of Yeh et al. 2017, equation 5, for a D that returns logits, which never becomes infinite.
    """
    return jax.nn.softplus(-discriminator(image[None])[0])


def saturating_adversarial(discriminator: Callable[[Array], Array], image: Array) -> Array:
    """Returns `-softplus(D(image))`, which is `log(1 - sigmoid(D(image)))` for a D that returns logits.

    The prior of Filipovski et al. in a form that is never infinite; its gradient vanishes where the
    discriminator is sure that the image is made.
    """
    return -jax.nn.softplus(discriminator(image[None])[0])


def discriminator_distance(features: Callable[[Array], dict[str, Array]], prediction: Array, target: Array) -> Array:
    """Returns the mean over blocks l of `mean |D_l(prediction) - D_l(target)| / mean |D_l(target)|`.

    The denominators count as constants in gradients: a target filled with the prediction's own pixels would otherwise
    bring a search to brighten its hole until everything else looks alike.

    Args:
        features: of a discriminator: takes images `[n, h, w, c]`, returns feature maps by name.
        prediction, target: images `[h, w, c]`.
    """
    both = features(jnp.stack([prediction, target]))
    scales = {name: jax.lax.stop_gradient(jnp.mean(jnp.abs(x[1]))) + 1e-8 for name, x in both.items()}
    return jnp.mean(jnp.stack([jnp.mean(jnp.abs(x[0] - x[1])) / scales[name] for name, x in both.items()]))
