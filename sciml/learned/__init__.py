"""Solvers made of learning."""
