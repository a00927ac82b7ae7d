"""Ethanol on GFN2-xTB with a continuous-filter network: long steps of 2 fs by SchNet. See ethanol_schnet.md."""

import dataclasses

from ethanol_gfn2 import RECIPE as MOMENTS
from recipe import main

RECIPE = dataclasses.replace(
    MOMENTS,
    name="ethanol-schnet",
    train={"network": "schnet", "channels": 32, "layers": 3, "updates": 2500, "batch_atoms": 288},
    reference_ps=2.0,
)

if __name__ == "__main__":
    main(RECIPE)
