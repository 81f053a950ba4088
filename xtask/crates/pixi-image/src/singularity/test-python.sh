python -c 'import os, sys; sys.exit(sys.prefix != os.environ["CONDA_PREFIX"])' || fail 'python does not start from the environment'
