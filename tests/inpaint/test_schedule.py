# SPDX-License-Identifier: Apache-2.0
"""Learning rates against their formula."""

import math

import numpy as np
import pytest

from inpaint.search import schedule


@pytest.mark.parametrize(("warmup", "decay"), [(0.05, 0.25), (0.0, 0.25), (0.1, 0.0), (0.5, 1.0)])
def test_schedule_is_the_formula(warmup, decay):
    """Every step has the rate of NVlabs' projector, written here in plain Python."""
    steps, lr = 40, 0.3
    rates = schedule.warmup_cosine(lr, steps, warmup=warmup, decay=decay)
    for step in range(steps + 1):
        t = step / steps
        ramp = min(1.0, (1 - t) / decay) if decay else 1.0
        expected = lr * (0.5 - 0.5 * math.cos(math.pi * ramp)) * (min(1.0, t / warmup) if warmup else 1.0)
        assert float(rates(step)) == pytest.approx(expected, abs=2e-7)


def test_default_schedule_rises_holds_and_falls():
    """Zero at both ends, the full rate between warm-up and decay."""
    rates = np.asarray([float(schedule.warmup_cosine(0.1, 100)(step)) for step in range(101)])
    assert rates[0] == 0 and rates[100] == pytest.approx(0, abs=1e-8) and rates.max() == pytest.approx(0.1)
    assert (np.diff(rates[:6]) > 0).all() and np.allclose(rates[5:76], 0.1) and (np.diff(rates[75:]) < 0).all()


def test_equal_settings_are_one_object():
    """Equal settings give the same optimiser, so they compile once."""
    assert schedule.adam(0.1, 7) is schedule.adam(0.1, 7)
    assert schedule.adam(0.1, 7) is not schedule.adam(0.1, 8)


@pytest.mark.parametrize(
    ("lr", "steps", "options"),
    [(0.1, 0, {}), (0.0, 5, {}), (float("nan"), 5, {}), (0.1, 5, {"warmup": 1.0}), (0.1, 5, {"decay": 1.5})],
)
def test_schedule_refuses(lr, steps, options):
    """Settings out of range are named."""
    with pytest.raises(ValueError, match=rf"need steps >= 1, lr > 0.*got {steps}, {lr}"):
        schedule.warmup_cosine(lr, steps, **options)
