# SPDX-License-Identifier: Apache-2.0
"""Stored latents, and their images."""

import functools
import os
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from stylegan_jax import checkpoint
from stylegan_jax.generator import StyleGenerator


def _read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if name in ("w", "generator_hash", "noise_mode")}
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder; name the latents.npz in it") from error
    # A .npy file gives an array, which is no context manager; the others come from all kinds of wrong contents.
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable npz file with latents; a restoration leaves latents.npz") from error


def read_latents(path: str | os.PathLike, model: checkpoint.Model) -> tuple[np.ndarray, str]:
    """Returns the stored latents `[n, num_ws, w_dim]` and their noise mode, after checking that they belong to `model`.

    Raises:
        ValueError: where the file is no npz with `w`, of another shape, not finite, or made with another generator.
    """
    config = model.generator.config
    arrays = _read_arrays(path)
    if "w" not in arrays:
        raise ValueError(f"{path} has no array 'w'; a restoration leaves latents.npz")
    ws, made_with = arrays["w"], str(arrays["generator_hash"]) if "generator_hash" in arrays else None
    noise = str(arrays["noise_mode"]) if "noise_mode" in arrays else "const"
    if ws.ndim != 3 or not len(ws) or ws.shape[1:] != (config.num_ws, config.w_dim):
        raise ValueError(f"{path}: w must be [n, {config.num_ws}, {config.w_dim}], got {list(ws.shape)}")
    if not np.issubdtype(ws.dtype, np.floating) or not np.isfinite(ws).all():
        raise ValueError(f"{path}: w must hold finite floating-point numbers, got {ws.dtype}")
    if made_with not in (None, model.content_hash):
        raise ValueError(f"{path} was made with another generator ({made_with[:12]}..); pass that one as --generator")
    if noise not in ("const", "none"):
        raise ValueError(f'{path}: noise_mode must be "const" or "none", got {noise!r}')
    return ws.astype(np.float32), noise


@functools.partial(jax.jit, static_argnames="noise")
def _render_one(generator: StyleGenerator, w: jax.Array, *, noise: str) -> jax.Array:
    return generator.synthesis(w[None], noise=noise)[0]


def render(model: checkpoint.Model, ws: np.ndarray, *, noise: str = "const") -> np.ndarray:
    """Returns the renders `[n, h, w, c]` of `ws` `[n, num_ws, w_dim]`, one after the other.

    One at a time, an image does not depend on how many others are rendered, to the last bit; the program is compiled
    once for a generator. `noise` is "const" (the stored maps) or "none".
    """
    return np.stack([np.asarray(_render_one(model.generator, jnp.asarray(w), noise=noise)) for w in ws])
