"""One story per command, read downward."""
