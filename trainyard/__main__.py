"""``python -m trainyard``: the console script."""

from trainyard.cli import main

if __name__ == "__main__":
    main()
