"""Which Triton kernels a server compiles, watched on a card: the lists that `kernel_code` compiles without one.

The rule: a list says which image was watched, on which card, and whether kernels were launched there or only asked for.
"""
