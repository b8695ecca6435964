"""Proof that an image works: a tiny model made here, its golden answers, and the checks that use them."""
