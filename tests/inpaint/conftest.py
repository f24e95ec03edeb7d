# SPDX-License-Identifier: Apache-2.0
"""Generators small enough for tests of the commands."""

import jax
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from stylegan_jax import image_io


@pytest.fixture(scope="session")
def save_generator():
    """Returns a function `(path, *, channels=3, c_dim=0)` that writes a random generator of 16 px."""

    def save(path, *, channels=3, c_dim=0):
        config = sg.GeneratorConfig(
            widths=(8, 8, 8), z_dim=4, w_dim=6, mapping_layers=2, image_channels=channels, c_dim=c_dim
        )
        generator = sg.Generator(config, rngs=nnx.Rngs(0))
        statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=200)
        sg.save(path, sg.Model(generator, w_statistics=statistics, provenance={"source": "random"}))

    return save


@pytest.fixture(scope="session")
def save_pictures():
    """Returns a function `(folder)` that writes an image and masks of 16, 32x16 and 48 px; it returns the levels."""

    def save(folder):
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, 4:10] = 255
        for name, picture in (("image", pixels), ("mask", mask)):
            image_io.write_image(folder / f"{name}.png", picture)
            image_io.write_image(folder / f"large_{name}.png", picture.repeat(3, 0).repeat(3, 1))
            image_io.write_image(folder / f"wide_{name}.png", np.concatenate([picture, picture], 1))
        image_io.write_image(folder / "inverted.png", 255 - mask)
        return pixels, mask

    return save
