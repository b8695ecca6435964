"""What engines really take of a card's memory, for `images/run/fit` to be held against.

The rule: a figure is what the card, the engine or its log told, with the case that it is of; none is worked out.
"""
