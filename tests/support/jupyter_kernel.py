"""A Jupyter kernel as a program: ``python -m support.jupyter_kernel LOOP -f CONNECTION_FILE``.

ipykernel stands on Tornado and pyzmq, and makes its loop by asyncio's policy: a user puts oxloop
below it with ``oxloop.install()`` in IPython's configuration, before the kernel starts.
"""

import sys

from ipykernel.kernelapp import launch_new_instance

if __name__ == "__main__":
    if sys.argv.pop(1) == "oxloop":
        import oxloop

        oxloop.install()
    launch_new_instance()
