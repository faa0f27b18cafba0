"""The command line: `ckptlake`, a thin face on what the library does."""

from __future__ import annotations


def main() -> None:
    """Run the command line with the program's arguments and exit."""
    try:
        from ckptlake.cli.app import run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()


__all__ = ["main"]
