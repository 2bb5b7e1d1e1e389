"""When: the drivers that work mailboxes, their placement on processes, retries, budgets, deadlines."""
