"""How the page is served: on this computer only, unless somebody asks for more."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui import assets, theme


def options() -> dict[str, Any]:
    """What launch() is told, whoever looks on."""
    return {"theme": theme.theme(), "css_paths": assets.styles(), "head": assets.head(), "footer_links": [], "run_history": False,
            "enable_monitoring": False, "mcp_server": False, "ssr_mode": False, "pwa": False, "quiet": True,
            "max_file_size": "2gb", "allowed_paths": []}


def launch(page: gr.Blocks, host: str, port: int | None, share: bool, wait: bool = True) -> tuple[Any, str, str | None]:
    """Serve the page until the process ends (wait) or in the background. Returns (app, local address, public address)."""
    app, local, public = page.launch(server_name=host, server_port=port, share=share, prevent_thread_lock=True, **options())
    print(f"Fine-Tuning Studio is ready: {local}", flush=True)
    if public:
        print(f"Public address: {public}", flush=True)
    if wait:
        page.block_thread()
    return app, local, public
