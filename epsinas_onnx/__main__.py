"""Runs the command line with `python -m epsinas_onnx`."""

from epsinas_onnx.cli.main import main

if __name__ == "__main__":
    main()
