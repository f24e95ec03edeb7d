# SPDX-License-Identifier: Apache-2.0
"""Stored latents, and their images."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from stylegan_jax import checkpoint


def read_latents(path: str | os.PathLike, model: checkpoint.Model) -> tuple[np.ndarray, str]:
    """Returns the stored latents `[n, num_ws, w_dim]` and their noise mode, after checking that they belong to `model`.

    Raises:
        ValueError: where the file is no npz with `w`, of another shape, or made with another generator.
    """
    config = model.generator.config
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "w" not in arrays:
                raise ValueError(f"{path} has no array 'w'; it has {', '.join(arrays.files) or 'none'}")
            ws, made_with = arrays["w"], str(arrays["generator_hash"]) if "generator_hash" in arrays else None
            noise = str(arrays["noise_mode"]) if "noise_mode" in arrays else "const"
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    if ws.ndim != 3 or ws.shape[1:] != (config.num_ws, config.w_dim):
        raise ValueError(f"{path}: w must be [n, {config.num_ws}, {config.w_dim}], got {list(ws.shape)}")
    if made_with not in (None, model.content_hash):
        raise ValueError(f"{path} was made with another generator ({made_with[:12]}..); pass that one as --generator")
    if noise not in ("const", "none"):
        raise ValueError(f'{path}: noise_mode must be "const" or "none", got {noise!r}')
    return ws.astype(np.float32), noise


def render(model: checkpoint.Model, ws: np.ndarray, *, noise: str = "const") -> np.ndarray:
    """Returns the renders `[n, h, w, c]` of `ws` `[n, num_ws, w_dim]`, one after the other.

    One at a time, an image does not depend on how many others are rendered, to the last bit. `noise` is "const" (the
    stored maps) or "none".
    """
    run = jax.jit(lambda generator, w: generator.synthesis(w[None], noise=noise)[0])
    return np.stack([np.asarray(run(model.generator, jnp.asarray(w))) for w in ws])
