"""Runs the command line with `python -m epsinas_onnx`."""

if __name__ == "__main__":  # and loads nothing in a worker process, which imports this module again
    from epsinas_onnx.cli.main import main

    main()
