"""partita-mini, the built-in model, and how it is made: vision tower, language model, embedding head.

    python -m training.mini --out runs/mini

The stages run in order and each is gated on held-out accuracy; a killed run goes on from its last checkpoint when the
same command is given again.
"""
