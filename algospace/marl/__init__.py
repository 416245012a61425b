"""Learning to decide: pre-training, MAPPO from several seeds, the choice among them, walk-forward folds, figures."""
