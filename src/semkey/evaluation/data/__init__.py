"""Inputs with ground truth."""
