"""The engine behind an API: one model, one worker, a fair queue, and who speaks to it."""
