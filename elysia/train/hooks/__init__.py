"""What happens around steps, a hook a file. Hooks read the run; only CheckpointHook writes its state."""
