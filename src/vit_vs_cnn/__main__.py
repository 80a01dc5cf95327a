"""The program as a module: `python -m vit_vs_cnn`."""

from vit_vs_cnn.cli import program

if __name__ == "__main__":
    program()
