"""What a network's predictions are worth: from the logits of a split to evaluation.json."""
