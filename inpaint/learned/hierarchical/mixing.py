# SPDX-License-Identifier: Apache-2.0
"""Mixing of what an encoder saw with what was sampled, one style after the other."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import layers


class Mixer(nnx.Module):
    """Two dense layers with a ReLU between them, `[n, in] -> [n, out]`; a new one gives 0."""

    def __init__(self, in_features: int, hidden: int, out_features: int, *, rngs: nnx.Rngs):
        self.fc = layers.Dense(in_features, hidden, activation="relu", rngs=rngs)
        self.out = layers.Dense(hidden, out_features, rngs=rngs)
        self.out.weight[...] = jnp.zeros_like(self.out.weight[...])

    def __call__(self, x: Array) -> Array:
        return self.out(self.fc(x))


class Mixing(nnx.Module):
    """The mixing network of every style: `W_out_i = mix_i(W_rand_i, W_enc_2i-1, W_enc_2i, W_out_<i)`.

    With `context` "previous" a style knows the one before it, with "all" every one before it, and with "none" no other
    (parallel mixing). Dündar 2024, section 3.1; sizes of the layers as there, but for the fourth input, which the
    paper's 3 x 512 leave out.
    """

    def __init__(self, *, num_ws: int, w_dim: int, code_dim: int, hidden: int, context: str, rngs: nnx.Rngs):
        self.num_ws, self.context = num_ws, context
        for i in range(num_ws):
            earlier = {"none": 0, "previous": min(i, 1), "all": i}[context]
            mixer = Mixer(w_dim * (1 + earlier) + 2 * code_dim, hidden, w_dim, rngs=rngs)
            setattr(self, f"mix{i}", mixer)

    def __call__(self, rand: Array, codes: Array) -> Array:
        """Returns output styles `[n, num_ws, w_dim]`; all styles are counted from one place.

        Args:
            rand: sampled styles `[n, num_ws, w_dim]`.
            codes: of the encoder, `[n, num_ws, 2, code_dim]`.
        """
        found: list[Array] = []
        for i in range(self.num_ws):
            earlier = {"none": [], "previous": found[-1:], "all": found}[self.context]
            x = jnp.concatenate([rand[:, i], codes[:, i, 0], codes[:, i, 1], *earlier], -1)
            found.append(getattr(self, f"mix{i}")(x))
        return jnp.stack(found, 1)
