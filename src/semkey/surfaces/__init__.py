"""Surfaces from posed depth images: fused into one signed distance field, as triangles, points and floor plans."""
