"""`python -m kdsearch`: the command, where its script is not on the path."""

from kdsearch.cli import main

if __name__ == "__main__":
    main()
