# SPDX-License-Identifier: Apache-2.0
"""The second half of a 64x64 generator's training: a StyleGAN2 against a DCGAN's discriminator.

python -m stylegan_jax train --data faces64.npz --split train --output runs/faces64_game \
    --initial runs/faces64/model --initial_discriminator dcgan64 --config configs/train_faces64_game.py
"""

from stylegan_jax.training.config import TrainConfig


def get_config(variant: str = "") -> TrainConfig:
    """Returns the settings; the variant "smoke" is a few steps of a tiny network."""
    game = dict(discriminator="dcgan", discriminator_moments="stored", discriminator_beta1=0.5, range_weight=1.0)
    if variant == "smoke":
        sizes = dict(resolution=8, channel_base=64, discriminator_widths=(4,), z_dim=8, w_dim=8)
        return TrainConfig(**sizes, **game, batch=4, images=8, decoding_weight=1.0, decoding_batch=2)
    return TrainConfig(
        resolution=64,
        widths=(128, 128, 64, 32, 32),
        discriminator_widths=(256, 128, 64, 32),
        discriminator_first=3_200,
        z_dim=64,
        w_dim=128,
        mapping_layers=4,
        images=400_000,
        batch=32,
        lr=0.001,
        discriminator_lr=0.0004,
        r1_gamma=0.2,
        noise="none",
        style_mixing=0.5,
        ema_images=5_000,
        augment="ada",
        augment_p=0.4,
        decoding_weight=0.3,
        decoding_batch=8,
        decoding_resolution=32,
        snapshot_images=6_400,
        **game,
    )
