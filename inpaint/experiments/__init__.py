# SPDX-License-Identifier: Apache-2.0
"""Grids of method x mask x image x seed: what to run, what a row holds, and the tables made of rows."""
