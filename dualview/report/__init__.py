"""`dualview report`: what runs are worth, as one HTML file that opens offline."""
