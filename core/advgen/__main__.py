"""``python -m advgen ...`` is ``gen ...``; under torchrun: ``torchrun -m advgen train ...``."""

from advgen.cli import main

if __name__ == "__main__":
    main()
