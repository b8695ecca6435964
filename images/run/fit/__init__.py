"""Fit: how a model is served on given cards, with its memory added up; or why it cannot be. Pure but for `words`."""
