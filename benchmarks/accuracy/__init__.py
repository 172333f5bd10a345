"""How good trained networks are on real data, by the commands that a user types."""
