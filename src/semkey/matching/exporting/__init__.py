"""Matchers and refiners as graphs for other runtimes."""
