# SPDX-License-Identifier: Apache-2.0
"""Networks whose features compare images; that which judges results is `stylegan_jax.features.judge`."""

from stylegan_jax.features.alexnet import AlexNet, AlexNetConfig
from stylegan_jax.features.arcface import ArcFace, ArcFaceConfig
from stylegan_jax.features.inception import Inception, InceptionConfig
from stylegan_jax.features.lpips import Lpips, LpipsConfig
from stylegan_jax.features.squeezenet import SqueezeNet, SqueezeNetConfig
from stylegan_jax.features.vgg import Vgg, VggConfig

__all__ = [
    "AlexNet",
    "AlexNetConfig",
    "ArcFace",
    "ArcFaceConfig",
    "Inception",
    "InceptionConfig",
    "Lpips",
    "LpipsConfig",
    "SqueezeNet",
    "SqueezeNetConfig",
    "Vgg",
    "VggConfig",
]
