# SPDX-License-Identifier: Apache-2.0
"""The second half of a 64x64 generator's training, in stages; each begins with the model of the one before.

python -m stylegan_jax train --data faces64.npz --split train --output runs/faces64_last \
    --initial runs/faces64_fourth/model --initial_discriminator runs/faces64/model \
    --config configs/train_faces64_game.py

The variants "first" to "fourth" are the stages before (--config FILE:first ...), against a DCGAN's discriminator;
docs/demo_model.md says what was seen in each, how long it ran, and which discriminator it began with.
"""

import dataclasses

from stylegan_jax.training.config import TrainConfig

DCGAN = dict(discriminator="dcgan", discriminator_beta1=0.5)


def get_config(variant: str = "") -> TrainConfig:
    """Returns the settings of a stage; the variant "smoke" is a few steps of a tiny network."""
    if variant == "smoke":
        sizes = dict(resolution=8, channel_base=64, discriminator_widths=(4,), z_dim=8, w_dim=8)
        game = dict(**DCGAN, discriminator_moments="stored", noise="none", range_weight=1.0, contrast_weight=1.0)
        return TrainConfig(**sizes, **game, batch=4, images=8, decoding_weight=1.0, decoding_batch=2)
    last = TrainConfig(
        resolution=64,
        widths=(128, 128, 64, 32, 32),
        z_dim=64,
        w_dim=128,
        mapping_layers=4,
        images=400_000,
        batch=32,
        # 0.001, and 0.1 for the decoding, in the first 9,600 images.
        lr=0.002,
        discriminator_lr=0.002,
        # Its discriminator knows another generator.
        discriminator_first=960,
        range_weight=1.0,
        r1_gamma=0.1,
        noise="none",
        style_mixing=0.5,
        ema_images=5_000,
        augment="ada",
        augment_p=0.2,
        decoding_weight=0.05,
        decoding_batch=8,
        decoding_resolution=32,
        snapshot_images=3_200,
    )
    if variant == "":
        return last
    changes = {
        "first": dict(
            discriminator_widths=(128, 64, 32, 16),
            discriminator_first=0,
            discriminator_lr=0.0002,
            contrast_weight=1.0,
            lr=0.0005,
            noise="random",
            ema_images=8_000,
            augment="fixed",
            augment_p=0.3,
            decoding_weight=1.0,
            decoding_batch=16,
        )
    }
    changes["second"] = changes["first"] | dict(
        discriminator_moments="stored",
        discriminator_lr=0.0004,
        r1_gamma=0.2,
        augment_p=0.5,
        decoding_weight=0.3,
        decoding_batch=8,
    )
    changes["third"] = dict(
        lr=0.001,
        discriminator_moments="stored",
        discriminator_widths=(256, 128, 64, 32),
        discriminator_first=3_200,
        discriminator_lr=0.0004,
        r1_gamma=0.2,
        noise="random",
        augment_p=0.4,
        decoding_weight=0.3,
    )
    changes["fourth"] = changes["third"] | dict(
        noise="none", discriminator_first=320, augment_p=0.27, decoding_weight=0.1
    )
    if variant not in changes:
        raise ValueError(f"unknown variant {variant!r}; known: smoke, {', '.join(changes)}")
    return dataclasses.replace(last, **DCGAN, **changes[variant])
