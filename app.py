"""Read --host --port --share --home, build the page, launch it."""

from __future__ import annotations

import argparse
import os


def build():
    """The page, not launched."""
    from studio.ui import build as page
    return page()


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-Tuning Studio: your own language model, on one page.")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on; 0.0.0.0 shows the page to your network")
    parser.add_argument("--port", type=int, default=None, help="port (else the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="a public https address through Gradio's tunnel; asks for a login")
    parser.add_argument("--home", metavar="DIR", help="where runs, models and data live (else STUDIO_HOME, else ~/.fine-tuning-studio)")
    return parser.parse_args(given)


def main() -> None:
    args = arguments()
    if args.home:
        os.environ["STUDIO_HOME"] = args.home
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from studio.ui import serving
    serving.launch(build(), args.host, args.port, args.share)


if __name__ == "__main__":
    main()
