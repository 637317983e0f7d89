"""The page as a program: read --host --port --share --home and the rest, build it, launch it.

`python app.py` in a checkout and `fine-tuning-studio` of the wheel; the latter with a command is `python -m studio`.
"""

from __future__ import annotations

import argparse
import os
import sys

from studio import __version__, address, early_exit, home
from studio.errors import StudioError, as_studio_error

# milliseconds: gradio's queue looks a thousand times a second whether it has work, and has no setting for that
SLACK = 4.0
LOOPBACK = "127.0.0.1"


def build():
    """The page, not launched."""
    from studio.ui import build as page

    return page()


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Fine-Tuning Studio: your own language model, on one page.",
        epilog="With a command instead (train, runs, chat, …): the same jobs in the terminal; "
        "`fine-tuning-studio train --help`.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--host",
        default="0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1",
        help="address to serve on (127.0.0.1); 0.0.0.0 shows the page to your network and asks for a login",
    )
    parser.add_argument("--port", type=int, help="port (else the first free one from 7860)")
    parser.add_argument(
        "--share", action="store_true", help="a public https address through Gradio's tunnel; asks for a login"
    )
    parser.add_argument(
        "--home", metavar="DIR", help="where runs, models and data live (else STUDIO_HOME, else ~/.fine-tuning-studio)"
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="answer to this Host name too, such as a proxy's; others can reach the page by it, so it asks for a login",
    )
    parser.add_argument(
        "--token",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="ask for a token, which the printed address carries "
        "(by default where other people have accounts on this computer)",
    )
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Launch the page; exits with status 2 and a sentence where the system refuses it."""
    args = arguments(given)
    try:
        home.check_working_folder()
        check_address(args.host, args.port)
        _serve(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(early_exit.STATUS)
    except Exception as error:
        refused = as_studio_error(error)
        if refused is None:
            raise
        print(f"{refused.message}\n{refused.hint}", file=sys.stderr)
        sys.exit(2)


def check_address(host: str, port: int | None) -> None:
    """Raise StudioError where no page can listen at an address. port: None for any."""
    if port == 0:
        raise StudioError(f"There is no port {port}.", "Give one from 1024 to 65535 with --port.", "--port")
    try:
        address.listen(LOOPBACK, 0).close()
    except StudioError as error:  # gradio tries its ports there, wherever it serves
        message = f"This computer has no address {LOOPBACK}, by which a free port is found."
        hint = "Switch it on (ip addr add 127.0.0.1/8 dev lo); --host ::1 serves the page on IPv6 all the same."
        raise StudioError(message, hint, "--host") from error
    address.listen(host, port or 0).close()


def _serve(args: argparse.Namespace) -> None:
    """Passwords come from STUDIO_PASSWORD and STUDIO_WATCH_PASSWORD: all users see command lines."""
    from studio import credentials

    passwords = credentials.take()
    if args.home:
        os.environ["STUDIO_HOME"] = args.home
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    for name in ("GRADIO_SHARE", "GRADIO_MCP_SERVER"):  # what is public is said on the command line
        os.environ.pop(name, None)
    from studio import process, queue

    process.set_timer_slack(SLACK)
    home.restrict_permissions()
    os.environ.setdefault("GRADIO_TEMP_DIR", str(home.subfolder("cache") / "gradio"))  # read when gradio is imported
    from studio.runs import backup, end_hooks
    from studio.ui import shared_host, uploads
    from studio.ui.serving import Reach, launch

    uploads.sweep()
    backup.watch()
    queue.watch(then=end_hooks.catch_up)
    owner, watcher = map(passwords.get, credentials.PASSWORDS)
    token = shared_host.shared() if args.token is None else args.token
    launch(
        build(),
        Reach(
            address.plain(args.host), args.port, args.share, tuple(args.allow_host), owner, watcher, token and not owner
        ),
    )


def entry() -> None:
    """`fine-tuning-studio`: alone or with options the page, with a command the terminal."""
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        early_exit.begin()
        from studio.__main__ import main as terminal

        sys.exit(terminal())
    main()


if __name__ == "__main__":
    main()
