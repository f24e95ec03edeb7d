# SPDX-License-Identifier: Apache-2.0
"""Converts published StyleGAN checkpoint files; reads them without torch and without executing anything in them.

Importing this package imports neither JAX nor `stylegan_jax`.
"""

from convert.conversion import convert, inspect
from convert.errors import ConversionError

__all__ = ["ConversionError", "convert", "inspect"]
