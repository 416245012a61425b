"""From bars to decisions, and the bundle that carries the way."""
