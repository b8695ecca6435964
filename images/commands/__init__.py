"""The commands of `./inv`: each task parses its flags and calls one function beside it, which prints what it finds.

A module for what one wants at a time: `advise`, `generate`, `make`, `prove`, `hand`, `run`; `typed` is what they share.
"""
