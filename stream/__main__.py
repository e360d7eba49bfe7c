"""`python -m stream`: the `driftline` command, for where the console script is not on the path."""

from stream.cli import main

if __name__ == "__main__":
    main()
