"""Recordings as they come, made into clips to train on. Knows nothing of training."""
