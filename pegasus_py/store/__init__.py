"""What survives a crash, on the controller."""
