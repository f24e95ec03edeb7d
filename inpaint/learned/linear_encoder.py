# SPDX-License-Identifier: Apache-2.0
"""Fitting of the linear encoder: images are inverted into W+, and the joint distribution of both is decomposed."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stylegan_jax as sg
from inpaint.operators import Mask
from inpaint.problem import Problem
from inpaint.search.initialise import Encoded, Mean
from inpaint.search.method import Method, Phase
from inpaint.search.schedule import adam
from inpaint.search.solve import solve
from inpaint.terms import term
from stylegan_jax import checkpoint, image_io, latents
from stylegan_jax.encoders import LinearEncoder, LinearEncoderConfig
from stylegan_jax.encoders.encoding import Encoder

LATENTS = "latents.npz"


@dataclasses.dataclass
class LinearEncoderTrainConfig:
    """Settings of the fit.

    Attributes:
        components, seen, noise: of the encoder, see `stylegan_jax.encoders.LinearEncoderConfig`.
        inversion_steps, lr: of the search in W+ that inverts every image, without noise inputs.
        hold: weight of the distance to where it began, in units of W's covariance, so that similar images keep similar
            latents.
        batch: images inverted together; x_flip: invert mirrored images too.
        half: store the arrays in half precision.
    """

    components: int = 256
    seen: int = 32
    noise: float = 0.3
    inversion_steps: int = 60
    lr: float = 0.05
    hold: float = 0.003
    batch: int = 32
    x_flip: bool = True
    half: bool = True


def decompose(images: np.ndarray, ws: np.ndarray, *, components: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a linear encoder: principal components of images, and the regression of latents on them.

    With scores z of unit variance of the centred images X and latents W, `L = X^T z / n` and `K = W^T z / n`.

    Args:
        images: `[n, seen, seen, c]`.
        ws: `[n, num_ws, w_dim]`.
        components: at most n - 1.

    Raises:
        ValueError: for more components than images can tell apart.
    """
    n = len(images)
    if components > min(n - 1, images[0].size):
        raise ValueError(
            f"{components} components need more than as many images and values in each, got {n} of {images[0].size}; "
            "give more images, or set components lower"
        )
    mean, latent_mean = images.mean(0, dtype=np.float64), ws.mean(0, dtype=np.float64)
    x = (images - mean).reshape(n, -1).astype(np.float64)
    values, vectors = np.linalg.eigh(x @ x.T)
    z = vectors[:, ::-1][:, :components] * np.sqrt(n)
    w = (ws - latent_mean).reshape(n, -1).astype(np.float64)
    return {
        "mean": mean.reshape(-1),
        "loadings": x.T @ z / n,
        "latent_mean": latent_mean,
        "latent_loadings": w.T @ z / n,
    }


class LinearEncoderTrainer:
    """A fit in a folder: `latents.npz` (inverted images, to resume), `model/` (the encoder)."""

    def __init__(
        self,
        config: LinearEncoderTrainConfig,
        model: sg.Model,
        images: np.ndarray,
        folder: str | os.PathLike,
        *,
        initial: Encoder | None = None,
    ):
        """Prepares the fit, and resumes it where the folder holds inverted images.

        Args:
            config: settings.
            model: the generator, with statistics of W.
            images: uint8 `[n, r, r, c]`.
            folder: of the fit.
            initial: an encoder for whole images, whose guesses inversions begin with; by default the model's own, else
                they begin with the mean of W.

        Raises:
            ValueError: where these do not fit each other.
        """
        generator = model.generator.config
        if images.shape[1:] != (generator.resolution,) * 2 + (generator.image_channels,):
            raise ValueError(f"images are {list(images.shape[1:])}, the generator's {[generator.resolution] * 2}")
        if config.x_flip:
            images = np.concatenate([images, images[:, :, ::-1]])
        self.encoder_config = LinearEncoderConfig(
            resolution=generator.resolution,
            seen=config.seen,
            image_channels=generator.image_channels,
            num_ws=generator.num_ws,
            w_dim=generator.w_dim,
            components=config.components,
            noise=config.noise,
        )
        model = model if initial is None else dataclasses.replace(model, encoder=initial)
        self.config, self.model, self.images, self.folder = config, model, images, pathlib.Path(folder)
        self.ws = np.full((len(images), generator.num_ws, generator.w_dim), np.nan, np.float32)
        self.errors = np.full(len(images), np.nan, np.float32)
        if (self.folder / LATENTS).exists():
            with np.load(self.folder / LATENTS, allow_pickle=False) as stored:
                if str(stored["asked"]) != self._asked():
                    raise ValueError(f"{folder} holds a fit with other settings or images; choose another --output")
                self.ws, self.errors = stored["ws"], stored["errors"]

    def _asked(self) -> str:
        """Returns what decides the inversions."""
        own = dataclasses.asdict(self.config)
        chosen = {name: own[name] for name in ("inversion_steps", "lr", "hold", "x_flip")}
        return f"{self.model.content_hash} {self.images.shape} {int(self.images.sum(dtype=np.int64))} {chosen}"

    def _method(self) -> Method:
        config, begun = self.config, self.model.encoder is not None
        terms = (term("l2"), *((term("guess_distance", config.hold),) if begun and config.hold else ()))
        optimizer = adam(config.lr, config.inversion_steps)
        phase = Phase(latents.WPLUS, config.inversion_steps, optimizer, terms, "none")
        return Method("inversion", (phase,), Encoded(0.0) if begun else Mean())

    def _invert(self, index: np.ndarray, method: Method) -> None:
        """Finds the latents of the images `index`."""
        whole = Mask(jnp.ones(self.images.shape[1:3]))
        images = image_io.from_uint8(self.images[index])
        problem = Problem.stack([Problem.observe(jnp.asarray(image), whole) for image in images])
        found = solve(self.model, problem, method, starts=1, key=jax.random.key(0), chunk=len(index))
        self.ws[index], self.errors[index] = found.ws[:, 0], found.terms["l2"][:, 0]

    def encoder(self) -> LinearEncoder:
        """Returns the encoder of all images that are inverted."""
        done = np.isfinite(self.errors)
        factor = self.encoder_config.resolution // self.encoder_config.seen
        images = image_io.from_uint8(self.images[done])
        n, size, channels = len(images), self.encoder_config.seen, images.shape[-1]
        images = images.reshape(n, size, factor, size, factor, channels).mean((2, 4))
        arrays = decompose(images, self.ws[done], components=self.config.components)
        dtype = np.float16 if self.config.half else np.float32
        return LinearEncoder.from_arrays(self.encoder_config, {name: x.astype(dtype) for name, x in arrays.items()})

    def run(self, *, provenance: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        """Inverts what is not inverted yet, and writes the encoder; `report` is told of every batch."""
        method, batch = self._method(), self.config.batch
        self.folder.mkdir(parents=True, exist_ok=True)
        while (left := np.flatnonzero(~np.isfinite(self.errors))).size:
            # The last batch is filled up by its last image, so that it runs the same program.
            index = np.concatenate([left[:batch], np.repeat(left[-1:], max(0, batch - len(left)))])
            self._invert(index, method)
            if not np.isfinite(self.errors[index]).all():
                raise ValueError("an inversion did not stay finite; lower lr")
            image_io.write_atomically(self.folder / LATENTS, self._write)
            decibels = float(10 * np.log10(4 / np.median(self.errors[index])))
            report({"inverted": int(np.isfinite(self.errors).sum()), "of": len(self.errors), "dB": round(decibels, 2)})
        own = {"config": dataclasses.asdict(self.config), "generator": self.model.content_hash}
        checkpoint.save_network(self.folder / "model", self.encoder(), provenance=provenance | own, overwrite=True)

    def _write(self, path: str) -> None:
        with open(path, "wb") as file:
            np.savez(file, ws=self.ws, errors=self.errors, asked=self._asked())
