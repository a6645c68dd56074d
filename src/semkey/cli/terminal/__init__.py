"""What is said besides results: progress, notes, warnings, logs."""
