"""What a template needs: its sandbox, the spans an assistant wrote, and the check that refuses wrong training."""
