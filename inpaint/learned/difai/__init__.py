# SPDX-License-Identifier: Apache-2.0
"""DiFaI (Yoon et al. 2022, "DiFaI: Diverse Facial Inpainting using StyleGAN Inversions"): holes are filled by a decoder
that sees what a frozen StyleGAN makes of perturbed latents.

`coarse image -> latents w in W+ -> w + SeFa step -> style image -> known pixels and style image in the hole -> decoder`
"""

from inpaint.learned.difai.inpainter import Difai, DifaiConfig

__all__ = ["Difai", "DifaiConfig"]
