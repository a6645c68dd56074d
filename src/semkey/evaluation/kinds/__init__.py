"""One file is one benchmark."""
