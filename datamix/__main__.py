"""`python -m datamix`, and the console script."""

import sys


def main() -> None:
    """Import the command line, and run it."""
    try:
        from datamix.cli import main as run
    except KeyboardInterrupt:  # while it is imported, before it sees to signals
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
