# SPDX-License-Identifier: Apache-2.0
"""A 64x64 generator that begins with the 32x32 demo model, on the 2,000 'train' portraits of faces64.npz.

python -m stylegan_jax train --data faces64.npz --split train --initial stylegan_jax/pretrained/faces32 \
    --output runs/faces64 --config configs/train_faces64.py
"""

from stylegan_jax.training.config import TrainConfig


def get_config(variant: str = "") -> TrainConfig:
    """Returns the settings; the variant "smoke" is a few steps of a tiny network."""
    if variant == "smoke":
        return TrainConfig(
            resolution=8,
            channel_base=64,
            z_dim=8,
            w_dim=8,
            batch=4,
            images=8,
            warm_start_images=4,
            decoding_weight=1.0,
            decoding_features=1.0,
            encoder_widths=(6, 4),
        )
    return TrainConfig(
        resolution=64,
        # Those of the 32x32 model and one block more.
        widths=(128, 128, 64, 32, 32),
        z_dim=64,
        w_dim=128,
        mapping_layers=4,
        images=400_000,
        batch=16,
        lr=0.0025,
        r1_gamma=0.05,
        style_mixing=0.5,
        ema_images=5_000,
        augment_images=30_000,
        warm_start_images=4_800,
        decoding_weight=2.0,
        decoding_features=1.0,
        encoder_widths=(128, 128, 64, 32, 16),
        snapshot_images=4_800,
    )
