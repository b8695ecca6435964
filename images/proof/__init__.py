"""What an image is shown to do, and how: by reading it, in containers, on a card.

The rule: never a stronger word than was seen.
"""
