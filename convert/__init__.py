# SPDX-License-Identifier: Apache-2.0
"""Converts published StyleGAN checkpoint files; reads them without torch and without executing anything in them.

`inspect` says what a file holds, `convert` makes a checkpoint of it, `verify` compares the two, and `export` writes a
checkpoint as a state dict for NVlabs' torch modules.

Importing this package imports neither JAX nor `stylegan_jax`.
"""

from convert.conversion import convert, inspect
from convert.errors import ConversionError
from convert.state_dict import export
from convert.verification import verify

__all__ = ["ConversionError", "convert", "export", "inspect", "verify"]
