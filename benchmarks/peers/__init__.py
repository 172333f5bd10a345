"""Other ways to predict a volume, each in a file of its own, and the race among them."""
