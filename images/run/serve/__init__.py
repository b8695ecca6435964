"""Serving: a fit, an image and a model's place as one value; from it a container, a docker line, a compose file."""
