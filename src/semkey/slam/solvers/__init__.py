"""Solvers on plain arrays: poses, bundle adjustment, pose graphs, triangulation. They know no map."""
