"""TODO: what this package offers."""
