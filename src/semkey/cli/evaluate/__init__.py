"""The commands of `semkey eval`."""
