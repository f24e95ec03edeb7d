# SPDX-License-Identifier: Apache-2.0
"""Encoders: networks that say which latents an image has."""

from stylegan_jax.encoders.masked import MaskedEncoder, MaskedEncoderConfig

__all__ = ["MaskedEncoder", "MaskedEncoderConfig"]
