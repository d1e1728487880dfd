"""One file per command: what it does, from first to last."""
