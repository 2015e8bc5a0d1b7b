"""What a network costs, and budgets of it."""
