"""dualview: chest X-ray classifiers on PA and lateral views, when many studies have only one of them."""

__version__ = "0.1.0"
