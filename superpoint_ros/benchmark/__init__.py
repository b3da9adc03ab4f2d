"""How fast it is: `superpoint benchmark`."""
