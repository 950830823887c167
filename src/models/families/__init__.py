"""The zoo: a module for each family of networks. src/models/registry.py says what each has."""
