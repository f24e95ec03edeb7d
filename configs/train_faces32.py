# SPDX-License-Identifier: Apache-2.0
"""The 32x32 demo generator, trained on the 2,000 'train' portraits of faces64.npz (docs/demo_model.md).

python -m stylegan_jax train --data faces64.npz --split train --output runs/faces32 --config configs/train_faces32.py
"""

from stylegan_jax.training.config import TrainConfig


def get_config(variant: str = "") -> TrainConfig:
    """Returns the settings of the demo generator; the variant "smoke" is a few steps of a tiny network."""
    if variant == "smoke":
        return TrainConfig(
            resolution=8,
            channel_base=64,
            z_dim=8,
            w_dim=8,
            batch=4,
            images=4,
            warm_start_images=4,
            decoding_weight=1.0,
        )
    return TrainConfig(
        resolution=32,
        channel_base=1024,
        channel_max=128,
        z_dim=64,
        w_dim=128,
        mapping_layers=4,
        images=400_000,
        batch=16,
        lr=0.002,
        r1_gamma=0.05,
        style_mixing=0.5,
        ema_images=5_000,
        augment_images=30_000,
        warm_start_images=40_000,
        decoding_weight=2.0,
        snapshot_images=10_000,
    )
