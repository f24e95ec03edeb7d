# SPDX-License-Identifier: Apache-2.0
"""Command modules: flags here, work in the library."""
