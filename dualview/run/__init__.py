"""A run directory: its files, who holds it, what is saved in it and read from it again."""
