"""The ``semkey`` command line; modules here import heavy libraries only inside the commands, so that help is fast."""
