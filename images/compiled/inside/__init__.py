"""What runs in a container of the image, with its Python: compiled code into the cache. Standard library only."""
