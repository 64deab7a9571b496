"""AWS's SDK of another language against a real hsmac: runs a program that uses it.

    python aws_program.py PATH-OF-HSMAC COMMAND ARGUMENT…

go/kms, ruby/kms.rb and rust are such programs.
"""

import pathlib
import sys

from program import aws, program
from service import run


def suite(checks, service):
    program(checks, sys.argv[2:], aws(service), pathlib.Path.cwd())


if __name__ == "__main__":
    run(
        f"AWS's SDK, {' '.join(sys.argv[2:])}", lambda checks, service: checks.part(suite, checks, service), sys.argv[1]
    )
