"""Configuration: YAML and URIs into validated models, every mistake with its file, line and column."""
