"""A trained network that is asked: about images in memory, a table, a folder, or as a graph for other software."""
