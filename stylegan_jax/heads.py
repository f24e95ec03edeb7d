# SPDX-License-Identifier: Apache-2.0
"""Small networks that turn fresh normal draws into latents and content, in place of the latents themselves (SPHInX).

Every step of a search draws anew, so that a head ends up giving the same image for whatever is drawn.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from stylegan_jax import joint, latents
from stylegan_jax.latents import Host, Inputs
from stylegan_jax.ops import activation

Layers = list[dict[str, Array]]


def _dense_layers(key: Array, widths: tuple[int, ...], dtype: jnp.dtype) -> Layers:
    """Returns layers with torch's initialisation, uniform within `1 / sqrt(in)`."""
    found = []
    for size, out in zip(widths[:-1], widths[1:], strict=True):
        key, weight_key, bias_key = jax.random.split(key, 3)
        bound = 1 / math.sqrt(size)
        weight = jax.random.uniform(weight_key, (size, out), dtype, -bound, bound)
        found.append({"weight": weight, "bias": jax.random.uniform(bias_key, (out,), dtype, -bound, bound)})
    return found


def _dense(layer: dict[str, Array], x: Array) -> Array:
    return x @ layer["weight"] + layer["bias"][None]


@dataclasses.dataclass(frozen=True)
class StyleHead(latents.Space):
    """Latents that a head makes of a fresh normal latent for every layer.

    An encoder that all layers share, dense to `encoder` (a ReLU after the first of them), then for every layer a
    decoder of its own, dense to `decoder` (a ReLU after the first) and to w. The variable holds weights and biases,
    `{"encoder": [...], "decoder": [...]}`, those of the decoders `[num_ws, ...]`.
    """

    name = "style_head"
    finer = ()
    is_normal = True
    encoder: tuple[int, ...] = (256, 128, 32)
    decoder: tuple[int, ...] = (64, 128)

    @property
    def has_ws(self) -> bool:
        """Its latents differ from draw to draw, but each says all about its image."""
        return True

    def to_inputs(self, host: Host, v: dict[str, Layers]) -> Inputs:
        z = latents.ZPLUS.draw(host)
        x = _dense(v["encoder"][0], z)
        x = jnp.maximum(x, 0)
        for layer in v["encoder"][1:]:
            x = _dense(layer, x)
        return Inputs(jax.vmap(_decode)(v["decoder"], x))

    def draw(self, host: Host) -> dict[str, Layers]:
        config, dtype = host.generator.config, host.generator.dtype
        encoder_key, decoder_key = jax.random.split(host.key)
        widths = (self.encoder[-1], *self.decoder, config.w_dim)
        decoders = jax.vmap(lambda key: _dense_layers(key, widths, dtype))(jax.random.split(decoder_key, config.num_ws))
        return {"encoder": _dense_layers(encoder_key, (config.z_dim, *self.encoder), dtype), "decoder": decoders}


def _decode(layers: Layers, x: Array) -> Array:
    x = jnp.maximum(_dense(layers[0], x[None]), 0)
    for layer in layers[1:]:
        x = _dense(layer, x)
    return x[0]


@dataclasses.dataclass(frozen=True)
class ContentHead(joint.Part):
    """The 4x4 input of synthesis, made of a fresh normal map `[4, 4, channels]` by 1x1 convolutions.

    `widths` are those between the map and the input; all but the last layer have a bias and a leaky ReLU, weights are
    equalised. The variable is the list of its layers.
    """

    name = "content_head"
    channels: int = 8
    widths: tuple[int, ...] = (32, 128)

    def add(self, host: Host, v: Layers, inputs: Inputs) -> Inputs:
        # Another draw than that of the styles.
        key = jax.random.fold_in(host.key, 1)
        x = jax.random.normal(key, (4, 4, self.channels), host.generator.dtype)
        for i, layer in enumerate(v):
            x = x @ (layer["weight"] * (1 / math.sqrt(layer["weight"].shape[0])))
            if i < len(v) - 1:
                x = activation.bias_act(x, layer["bias"], activation="lrelu")
        return inputs._replace(features=dict(inputs.features or {}) | {joint.Content.entering: x})

    def draw(self, host: Host, inputs: Inputs) -> Layers:
        dtype = host.generator.dtype
        widths = (self.channels, *self.widths, host.generator.config.widths[0])
        keys = jax.random.split(host.key, len(widths) - 1)
        found: Layers = []
        for i, key in enumerate(keys):
            layer = {"weight": jax.random.normal(key, (widths[i], widths[i + 1]), dtype)}
            found.append(layer | ({"bias": jnp.zeros(widths[i + 1], dtype)} if i < len(keys) - 1 else {}))
        return found


@dataclasses.dataclass(frozen=True)
class MultiCode(latents.Space):
    """Several latents whose feature maps are blended where they enter a layer, channel by channel (mGANprior, Gu et al.
    2020): `F = mean_n alpha_n f(w_n)`.

    Layers from there on get the mean of the latents. The importances begin with 1 (published: 1/n, for a network that
    normalises the map that it gets). The variable is `{"latents": [codes, ...], "importance": [codes, c]}`.
    """

    name = "multi_code"
    finer = ()
    is_normal = True
    codes: int = 30
    entering: str = "b16"
    base: latents.Space = latents.Z

    @property
    def has_ws(self) -> bool:
        """The blended map says what no latents do."""
        return False

    def to_inputs(self, host: Host, v: dict[str, Array]) -> Inputs:
        ws = jax.vmap(lambda one: self.base.to_inputs(host, one).ws)(v[joint.LATENTS])
        maps = jax.vmap(lambda one: joint.features_entering(host, Inputs(one), self.entering)[0])(ws)
        blended = jnp.mean(maps * v["importance"][:, None, None, :], axis=0)
        return Inputs(ws.mean(0), features={self.entering: blended})

    def draw(self, host: Host) -> dict[str, Array]:
        keys = jax.random.split(host.key, self.codes)
        codes = jax.vmap(lambda key: self.base.draw(host._replace(key=key)))(keys)
        inputs = self.base.to_inputs(host, codes[0])
        channels = joint.features_entering(host, inputs, self.entering).shape[-1]
        return {joint.LATENTS: codes, "importance": jnp.ones((self.codes, channels), host.generator.dtype)}
