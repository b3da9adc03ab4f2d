"""The subcommands of `superpoint`, one file each; a feature is imported when its command is called.

A command returns a text to print, or whether all of its input was good.
"""
