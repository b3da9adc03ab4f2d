"""The subcommands of `superpoint`, one file each; a feature is imported when its command is called."""
