"""What a network is worth: a split put to it, metrics, statistics, and the document of an evaluation."""
