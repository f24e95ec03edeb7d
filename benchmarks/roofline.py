# SPDX-License-Identifier: Apache-2.0
"""The least time that value and gradient of StyleGAN2 synthesis can take, operation by operation.

Every operation takes at least the longer of its arithmetic at the rate of matrix multiplication and its traffic at the
bandwidth of memory, both measured in the same run. Kernels are counted as a good compiler fuses them: scaling by the
styles; the convolution; the filter after an up-convolution; and one kernel for demodulation, noise, bias, activation.
Weights are frozen, so only gradients of inputs and styles are counted.
"""

import dataclasses

import stylegan_jax as sg

RESAMPLING_TAPS = 4


@dataclasses.dataclass(frozen=True)
class Operation:
    """One kernel: its name, floating-point operations and the elements that it reads and writes."""

    name: str
    operations: float
    elements: float

    def seconds(self, *, rate: float, bandwidth: float, item_size: int) -> float:
        """Returns the longer of arithmetic (`rate`, operations/s) and traffic (`bandwidth`, bytes/s)."""
        return max(self.operations / rate, self.elements * item_size / bandwidth)


def _modulated(name: str, batch: int, pixels_in: int, pixels: int, taps: int, channels: tuple[int, int]) -> list:
    """Returns the kernels of one modulated convolution, forward and backward."""
    inner, outer = channels
    up = pixels > pixels_in
    x, y, weight = batch * pixels_in * inner, batch * pixels * outer, taps * inner * outer
    product = Operation(f"{name}.convolution", 2.0 * taps * inner * outer * batch * pixels_in, x + weight + y)
    resampling = Operation(f"{name}.filter", 2.0 * 2 * RESAMPLING_TAPS * y, 2 * y)
    forward = [Operation(f"{name}.scale", x, 2 * x), product, Operation(f"{name}.epilogue", 4 * y, 2 * y)]
    # Backward the same products run from output to input; both passes over activations read what was kept, too.
    backward = [Operation(f"{name}.epilogue'", 6 * y, 3 * y), product, Operation(f"{name}.scale'", 3 * x, 3 * x)]
    return forward + backward + ([resampling, resampling] if up else [])


def value_and_gradient(config: sg.GeneratorConfig, batch: int) -> list[Operation]:
    """Returns the kernels of value and gradient with respect to ws, for the 'skip' architecture."""
    found = []
    for i, width in enumerate(config.widths):
        pixels, name = (4 << i) ** 2, f"b{4 << i}"
        if i:
            found += _modulated(f"{name}.conv0", batch, pixels // 4, pixels, 9, (config.widths[i - 1], width))
        found += _modulated(f"{name}.conv1", batch, pixels, pixels, 9, (width, width))
        image = batch * pixels * config.image_channels
        rgb = 2.0 * width * image
        # ToRGB's styles, product and sum with the enlarged image are one kernel each way: next to no arithmetic.
        found += [Operation(f"{name}.torgb", rgb, batch * pixels * width + 2 * image)]
        found += [Operation(f"{name}.torgb'", 2 * rgb, 2 * batch * pixels * width + 2 * image)]
    return found


def least_seconds(config: sg.GeneratorConfig, batch: int, *, rate: float, bandwidth: float, item_size: int) -> float:
    """Returns the sum of every kernel's least time, in seconds."""
    parts = value_and_gradient(config, batch)
    return sum(part.seconds(rate=rate, bandwidth=bandwidth, item_size=item_size) for part in parts)
