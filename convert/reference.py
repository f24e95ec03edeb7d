# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs that a user saved from the original tool: the arrays of an npz file, checked against a model.

| key | what | shape |
|---|---|---|
| `z` | latents, or in their place `ws` (also named `w`): latents of every layer | [n, z_dim], [n, num_ws, w_dim] |
| `c` | labels of `z`, for a conditional generator | [n, c_dim] |
| `image` | what the generator gave, about [-1, 1], not clipped or rounded | [n, c, h, w] or [n, h, w, c] |
| `truncation_psi` | of `z`, on all layers; 1 where it is left out | scalar |
| `noise_mode` | `const` (the stored maps; where it is left out) or `none`; never random | text |
| `d_image` | images for the discriminator, as one batch | as `image` |
| `d_c` | labels of those, for a conditional discriminator | [m, c_dim] |
| `logits` | what the discriminator gave for them | [m] or [m, 1] |

Either the generator's keys, or the discriminator's, or both. In NVlabs' torch code such a file comes from

    image = G(z, None, truncation_psi=0.7, noise_mode="const", force_fp32=True)
    numpy.savez("outputs.npz", z=z.numpy(), image=image.numpy(), truncation_psi=0.7, noise_mode="const")
"""

from __future__ import annotations

import dataclasses
import math
import os
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from convert.errors import ConversionError, concerning, shown

if TYPE_CHECKING:
    import stylegan_jax

KEYS = ("z", "w", "ws", "c", "image", "truncation_psi", "noise_mode", "d_image", "d_c", "logits")
EXPECTED = (
    "expected z [n, z_dim] or ws [n, num_ws, w_dim] with image [n, c, h, w] or [n, h, w, c], where they apply c "
    "[n, c_dim], truncation_psi and noise_mode ('const' or 'none'); for the discriminator d_image, logits and d_c"
)
MOST_BYTES = 4 << 30
LONGEST_HEADER = 10_000
NOISE_MODES = ("const", "none")


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Checked inputs and outputs; None where there are none. Images are [n, h, w, c], all arrays float32.

    `z` [n, z_dim] with labels `c` [n, c_dim] and `truncation_psi`, or `ws` [n, num_ws, w_dim], gave `image` under
    `noise_mode`; `d_image` with `d_c` [m, c_dim] gave `logits` [m].
    """

    z: np.ndarray | None = None
    ws: np.ndarray | None = None
    c: np.ndarray | None = None
    image: np.ndarray | None = None
    truncation_psi: float = 1.0
    noise_mode: str = "const"
    d_image: np.ndarray | None = None
    d_c: np.ndarray | None = None
    logits: np.ndarray | None = None


def read_reference(path: str | os.PathLike[str], model: stylegan_jax.Model) -> Reference:
    """Reads an npz file of the keys above; pickled objects in it are refused, not loaded.

    Args:
      path: the file.
      model: whose outputs they are said to be; its sizes must fit.

    Returns:
      The arrays.

    Raises:
      ConversionError: no such file, damage, pickled objects, too much data, or keys, shapes or types that do not fit;
        the message names what is expected.
    """
    with concerning(path):
        arrays = read_arrays(path)
        unknown = sorted(set(arrays) - set(KEYS))
        if unknown:
            raise ConversionError(f"holds {', '.join(map(shown, unknown))}; {EXPECTED}")
        if "image" not in arrays and "logits" not in arrays:
            raise ConversionError(f"holds neither image nor logits; {EXPECTED}")
        noise_mode = str(_scalar(arrays, "noise_mode", "U", "const"))
        if noise_mode not in NOISE_MODES:
            raise ConversionError(f"noise_mode is {shown(noise_mode)}, expected 'const' or 'none'")
        psi = float(_scalar(arrays, "truncation_psi", "fiu", 1.0))
        if not math.isfinite(psi):
            raise ConversionError("truncation_psi is not finite")
        generated = _generator_part(arrays, model.generator.config)
        judged = _discriminator_part(arrays, model)
        if psi != 1.0 and generated.get("z") is None:
            raise ConversionError("truncation_psi belongs to z; ws are taken as they are, so leave it out")
    return Reference(**generated, **judged, truncation_psi=psi, noise_mode=noise_mode)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns the arrays `[...]` of an npz file by name, plain numbers and text only and bounded in size.

    Raises:
      ConversionError: something else than that.
    """
    arrays: dict[str, np.ndarray] = {}
    left = MOST_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                left -= member.file_size
                if len(arrays) >= len(KEYS) or left < 0:
                    raise ConversionError(f"holds more than {len(KEYS)} arrays or {MOST_BYTES:,} bytes; {EXPECTED}")
                if name in arrays:
                    raise ConversionError(f"holds {shown(name)} twice")
                arrays[name] = _read_member(archive, member)
    except FileNotFoundError as error:
        raise ConversionError("does not exist") from error
    except ConversionError:
        raise
    # What zipfile and numpy raise for damaged, encrypted or oddly compressed archives is of many kinds.
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise ConversionError(f"is no readable npz file ({type(error).__name__}); {EXPECTED}") from error
    return arrays


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    # The size is checked before numpy, which would first allocate whatever the header claims.
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ConversionError(f"{shown(member.filename)} has an npy version that is not read")
        shape, _, dtype = read_header(file, max_header_size=LONGEST_HEADER)
        if dtype.kind not in "fiuU":
            raise ConversionError(f"{shown(member.filename)} holds {shown(str(dtype))} elements, expected numbers")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ConversionError(f"{shown(member.filename)} claims the shape {shown(shape)}, which its size is not")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False, max_header_size=LONGEST_HEADER)


def _scalar(arrays: dict, name: str, kinds: str, default: object) -> object:
    if name not in arrays:
        return default
    if arrays[name].size != 1 or arrays[name].dtype.kind not in kinds:
        raise ConversionError(f"{name} has shape {shown(arrays[name].shape)}, expected one value; {EXPECTED}")
    return arrays[name].reshape(())[()]


def _numbers(arrays: dict, name: str, shapes: list[tuple[int | str, ...]]) -> np.ndarray:
    """Returns the array `name`, float32, which has one of `shapes`; an n stands for any size from 1 on."""
    if name not in arrays:
        raise ConversionError(f"{name} is missing; {EXPECTED}")
    array = arrays[name]
    fits = [
        len(array.shape) == len(shape)
        and all(n > 0 if size == "n" else n == size for n, size in zip(array.shape, shape, strict=True))
        for shape in shapes
    ]
    if not any(fits):
        wanted = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in shapes)
        raise ConversionError(f"{name} has shape {shown(array.shape)}, expected {wanted} for this network")
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ConversionError(f"{name} holds {array.dtype} elements, expected finite floating-point numbers")
    return array.astype(np.float32)


def _images(arrays: dict, name: str, resolution: int, channels: int) -> np.ndarray:
    torch, ours = ("n", channels, resolution, resolution), ("n", resolution, resolution, channels)
    array = _numbers(arrays, name, [torch, ours])
    return np.moveaxis(array, 1, 3) if array.shape[1:] == torch[1:] else array


def _same_count(found: dict) -> None:
    counts = {name: len(array) for name, array in found.items() if array is not None}
    if len(set(counts.values())) > 1:
        raise ConversionError(f"{', '.join(f'{k} has {v}' for k, v in counts.items())} samples, expected as many each")


def _generator_part(arrays: dict, config: object) -> dict[str, np.ndarray | None]:
    given = [name for name in ("z", "ws", "w") if name in arrays]
    if "image" not in arrays:
        superfluous = [name for name in (*given, "c") if name in arrays]
        if superfluous:
            raise ConversionError(f"holds {', '.join(superfluous)} but no image; {EXPECTED}")
        return {}
    if len(given) != 1:
        raise ConversionError(f"holds {' and '.join(given) or 'no latents'} with image; {EXPECTED}")
    found: dict[str, np.ndarray | None] = {"z": None, "ws": None, "c": None}
    if given == ["z"]:
        found["z"] = _numbers(arrays, "z", [("n", config.z_dim)])
        if config.c_dim:
            found["c"] = _numbers(arrays, "c", [("n", config.c_dim)])
    else:
        found["ws"] = _numbers(arrays, given[0], [("n", config.num_ws, config.w_dim)])
    if "c" in arrays and found["c"] is None:
        raise ConversionError("holds c, but nothing that takes labels: a generator without any, or ws")
    found["image"] = _images(arrays, "image", config.resolution, config.image_channels)
    _same_count(found)
    return found


def _discriminator_part(arrays: dict, model: stylegan_jax.Model) -> dict[str, np.ndarray | None]:
    if not {"d_image", "d_c", "logits"} & set(arrays):
        return {}
    if model.discriminator is None:
        raise ConversionError("holds outputs of a discriminator, but the checkpoint has none")
    config = model.discriminator.config
    found: dict[str, np.ndarray | None] = {
        "d_image": _images(arrays, "d_image", config.resolution, config.image_channels),
        "logits": _numbers(arrays, "logits", [("n",), ("n", 1)]).reshape(-1),
        "d_c": _numbers(arrays, "d_c", [("n", config.c_dim)]) if config.c_dim else None,
    }
    if "d_c" in arrays and not config.c_dim:
        raise ConversionError("holds d_c, but the discriminator takes no labels")
    _same_count(found)
    return found
