"""Training: pairs of views with exact correspondences, and everything that learns from them."""
