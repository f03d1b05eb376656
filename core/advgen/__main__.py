"""``python -m advgen ...`` is ``gen ...``; under torchrun: ``torchrun -m advgen train ...``."""

from advgen.cli import command

if __name__ == "__main__":
    command()
