"""Image files: decoded, or stored decoded."""
