# SPDX-License-Identifier: Apache-2.0
"""Encoders: networks that say which latents an image has."""

from stylegan_jax.encoders.encoding import encode, encode_steps, expected, fill_holes, landmark_transform, render
from stylegan_jax.encoders.linear import LinearEncoder, LinearEncoderConfig
from stylegan_jax.encoders.masked import MaskedEncoder, MaskedEncoderConfig
from stylegan_jax.encoders.single_head import SingleHeadEncoder, SingleHeadEncoderConfig
from stylegan_jax.encoders.style import StyleEncoder, StyleEncoderConfig

__all__ = [
    "LinearEncoder",
    "LinearEncoderConfig",
    "MaskedEncoder",
    "MaskedEncoderConfig",
    "SingleHeadEncoder",
    "SingleHeadEncoderConfig",
    "StyleEncoder",
    "StyleEncoderConfig",
    "encode",
    "encode_steps",
    "expected",
    "fill_holes",
    "landmark_transform",
    "render",
]
