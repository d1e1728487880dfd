"""`dualview compare`: the same training for several networks and seeds, and one table of what came out."""
