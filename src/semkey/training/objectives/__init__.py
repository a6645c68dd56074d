"""Losses of a stage and how their gradients are combined."""
