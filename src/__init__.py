"""Sound event recognition baselines on GISE-51-Mixtures."""
