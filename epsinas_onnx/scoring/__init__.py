"""From one model to one Score: plan, run, judge."""
