# SPDX-License-Identifier: Apache-2.0
"""From the folder of a finished evaluation to a page that people read, and tables for papers.

`statistics` says what the rows tell, `tables` writes it down, `choice` picks pictures by rule, `plots` draws, `summary`
answers in words, and `page` puts all of it into one file.
"""
