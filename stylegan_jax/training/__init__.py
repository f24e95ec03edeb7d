# SPDX-License-Identifier: Apache-2.0
"""Training of generators: data input, augmentation, losses and the loop behind `python -m stylegan_jax train`."""
