"""What a stage does first and last: params, seeds, artefacts, training state."""
