# SPDX-License-Identifier: Apache-2.0
"""How it is found: initialisation, schedules, the one optimisation loop, and selection among its starts."""
