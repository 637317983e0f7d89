"""What a template needs: the sandbox it runs in, which characters an assistant wrote, and the gate that refuses one that would train the wrong tokens."""
