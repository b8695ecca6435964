"""What stops the reading of a layer, as values that the layer's name is added to later."""

from __future__ import annotations


class LayerFault(Exception):
    """A layer is not what a layer is: cut, packed in a way that is not known, beyond the bounds."""


class NoParts(Exception):
    """A layer cannot be read in part, for the reason that it says; it is read whole."""
