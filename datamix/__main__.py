"""The entry point of `python -m datamix` and of the console script."""

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from datamix.cli import main as run
    except KeyboardInterrupt:  # during the import, before the command line handles signals
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
