"""`python -m datamix`."""

import sys

if __name__ == "__main__":
    try:
        from datamix.cli import main
    except KeyboardInterrupt:  # while it is imported, before `main` sees to signals
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    main()
