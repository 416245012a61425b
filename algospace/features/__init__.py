"""Features: the table of every bar, what is fitted on train, the windows that the models see."""
