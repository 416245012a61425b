"""The five stages of the pipeline, run by DVC as ``python -m stages.NAME``."""
