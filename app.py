"""The page of a checkout and of a Space: see studio/page.py."""

from __future__ import annotations

from studio.page import arguments, build, main

__all__ = ["arguments", "build", "main"]

if __name__ == "__main__":
    main()
