"""``python -m m3ops``."""

from m3ops.tools.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
