"""Ethanol on SO3LR, a neural force field of organic molecules: long steps of 2 fs. See ethanol_so3lr.md."""

import dataclasses

from ethanol_gfn2 import RECIPE as TIGHT_BINDING
from recipe import main

RECIPE = dataclasses.replace(TIGHT_BINDING, name="ethanol-so3lr", potential="so3lr", reference_ps=3.0)

if __name__ == "__main__":
    main(RECIPE)
