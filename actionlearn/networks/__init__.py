"""Scalar networks that potentials and actions are made of."""
