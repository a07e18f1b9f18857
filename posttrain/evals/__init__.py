"""checkpoint -> scores: tasks, how they are run, and the report."""
