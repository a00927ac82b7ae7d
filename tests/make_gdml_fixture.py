"""Write `gdml_ethanol.npz`: what the package `sgdml` makes of 60 geometries of ethanol, for comparison.

    pip install 'actionlearn[sgdml]'
    python tests/make_gdml_fixture.py REFERENCE

REFERENCE is a folder of stretches of ethanol, sampled as `data/ethanol/README.md` says of the training set; 60 + 20
frames, evenly spread over those at the highest temperature, are taken. Units are Å and eV throughout.
"""

import argparse
from pathlib import Path

import numpy as np

np.in1d = np.isin  # sgdml 1.0.3 calls it by the name it had before numpy 2.4

from sgdml.predict import GDMLPredict  # noqa: E402
from sgdml.train import GDMLTrain  # noqa: E402
from sgdml.utils import io  # noqa: E402

import actionlearn as al  # noqa: E402
from actionlearn.gdml import Labels  # noqa: E402

SIGMA, REGULARISATION, TRAINING, TEST = 20, 1e-10, 60, 20


def dataset(labels: Labels, name: str) -> dict[str, object]:
    content = {
        "type": "d",
        "code_version": "1.0.3",
        "name": np.array(name),
        "theory": np.array("GFN2-xTB"),
        "z": labels.system.numbers.numpy(),
        "R": labels.positions.numpy(),
        "E": labels.energies.numpy(),
        "F": labels.forces.numpy(),
    }
    content["md5"] = io.dataset_md5(content)
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", help="folder of stretches of ethanol")
    reference = al.ReferenceSet.open(parser.parse_args().reference)
    hot = [stretch for stretch in reference if stretch.temperature_K == max(reference.temperatures_K)]
    training, test = Labels.from_stretches(hot, TRAINING + TEST).split(TRAINING)
    trainer = GDMLTrain(max_processes=1)
    task = trainer.create_task(
        dataset(training, "training"), TRAINING, dataset(test, "test"), TEST, sig=SIGMA, lam=REGULARISATION
    )
    model = trainer.train(task)
    energies, forces = GDMLPredict(model, max_processes=1).predict(test.positions.numpy().reshape(TEST, -1))
    np.savez_compressed(
        Path(__file__).with_name("gdml_ethanol.npz"),
        numbers=training.system.numbers.numpy(),
        positions=training.positions.numpy(),
        energies=training.energies.numpy(),
        forces=training.forces.numpy(),
        test_positions=test.positions.numpy(),
        test_energies=test.energies.numpy(),
        test_forces=test.forces.numpy(),
        sigma=SIGMA,
        regularisation=REGULARISATION,
        package_permutations=model["perms"],
        package_energies=energies,
        package_forces=forces.reshape(TEST, -1, 3),
    )


if __name__ == "__main__":
    main()
