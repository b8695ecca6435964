"""Levels 2 to 4 of the proof of an image, as pytest files for images/proof/smoke/prove.py; no tests of this project."""
