"""What the user supplies, a guard around it, and views of it."""
