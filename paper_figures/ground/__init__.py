"""What the scripts of the paper figures stand on."""
