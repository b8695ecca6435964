"""What kernels do on a card, without one: Triton's compiled for it, the image's own counted instruction by instruction.

The rule: what was compiled is what a server was seen to compile, or read in its source, and says which.
"""
