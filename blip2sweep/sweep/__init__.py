"""A sweep's life: plan, packs, workers, following. Knows neither Hydra nor, outside the worker, torch."""
