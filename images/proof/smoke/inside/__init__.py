"""Scripts that run inside the image under test: standard library only, any Python from 3.10."""
