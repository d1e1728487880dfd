"""Training: the learner, one optimizer step of it, and what a run keeps an eye on."""
