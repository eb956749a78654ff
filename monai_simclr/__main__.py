"""`python -m monai_simclr` is the command `monai-simclr`."""

from monai_simclr.cli.app import main

if __name__ == "__main__":
    main()
