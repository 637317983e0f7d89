"""Read --host --port --share --home and the rest, build the page, launch it."""

from __future__ import annotations

import argparse
import os


def build():
    """The page, not launched."""
    from studio.ui import build as page
    return page()


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-Tuning Studio: your own language model, on one page.")
    parser.add_argument("--host", default="0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1",
                        help="address to serve on (127.0.0.1); 0.0.0.0 shows the page to your network and asks for a login")
    parser.add_argument("--port", type=int, help="port (else the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="a public https address through Gradio's tunnel; asks for a login")
    parser.add_argument("--home", metavar="DIR", help="where runs, models and data live (else STUDIO_HOME, else ~/.fine-tuning-studio)")
    parser.add_argument("--allow-host", metavar="NAME", action="append", default=[], help="answer to this Host name too, such as a proxy's")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Passwords come from STUDIO_PASSWORD and STUDIO_WATCH_PASSWORD, never from the command line, which everybody here can read."""
    args = arguments(given)
    if args.home:
        os.environ["STUDIO_HOME"] = args.home
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    for name in ("GRADIO_SHARE", "GRADIO_MCP_SERVER"):  # what is public is said on the command line
        os.environ.pop(name, None)
    from studio import queue
    from studio.runs import afterwards, backup
    from studio.ui.serving import Reach, launch
    backup.watch()
    queue.watch(then=afterwards.catch_up)
    launch(build(), Reach(args.host, args.port, args.share, tuple(args.allow_host), os.environ.get("STUDIO_PASSWORD"), os.environ.get("STUDIO_WATCH_PASSWORD")))


if __name__ == "__main__":
    main()
