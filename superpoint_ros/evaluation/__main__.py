"""`python -m superpoint_ros.evaluation`: the same as `superpoint evaluate`."""

from jsonargparse import auto_cli

from superpoint_ros.evaluation.commands import COMMANDS

if __name__ == '__main__':
    print(auto_cli(dict(COMMANDS), prog='superpoint evaluate'))  # type: ignore[arg-type]
