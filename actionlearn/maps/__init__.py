"""Large-step maps made from potentials."""
