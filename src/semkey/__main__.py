"""``python -m semkey``: the command line, where the script ``semkey`` is not on the path."""

from semkey.cli.main import main

if __name__ == "__main__":
    main()
