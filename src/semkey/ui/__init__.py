"""A local page that shows what semkey finds in two images or a short clip."""
