# SPDX-License-Identifier: Apache-2.0
"""`python -m stylegan_jax render`: images of random latents, or of stored ones.

python -m stylegan_jax render --output samples --count 16 --truncation_psi 0.7
python -m stylegan_jax render --output again --latents out/latents.npz
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from stylegan_jax import checkpoint, image_io, latents, rendering

_GENERATOR = flags.DEFINE_string("generator", None, checkpoint.GENERATOR_HELP)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the images.")
_LATENTS = flags.DEFINE_string("latents", None, "npz with w [n, num_ws, w_dim] (as `restore` and NVlabs' tools write).")
_COUNT = flags.DEFINE_integer("count", 16, "Number of random samples.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the random latents.")
_PSI = flags.DEFINE_float("truncation_psi", 1.0, "Pulls random samples to the mean of W.")


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    if not _OUTPUT.value:
        raise ValueError("--output is needed")
    model = checkpoint.load(_GENERATOR.value)
    if _LATENTS.value:
        ws, noise = rendering.read_latents(_LATENTS.value, model)
    else:
        config = model.generator.config
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(_SEED.value), i))(jnp.arange(_COUNT.value))
        z = jax.vmap(lambda key: jax.random.normal(key, (config.z_dim,)))(keys)
        c = latents.random_labels(jax.random.fold_in(jax.random.key(_SEED.value), 1), config.c_dim, _COUNT.value)
        ws, noise = model.generator.map(z, c, truncation_psi=_PSI.value), "const"
    images = rendering.render(model, np.asarray(ws), noise=noise)
    folder = pathlib.Path(_OUTPUT.value)
    for i, image in enumerate(images, 1):
        image_io.write_image(folder / f"raw_{i}.png", image)
    columns = int(np.ceil(np.sqrt(len(images))))
    image_io.write_image(folder / "sheet.png", image_io.grid(images, columns=columns))
    print(f"{len(images)} images and sheet.png in {folder}")
    return 0
