"""From images to a COLMAP database, and to a reconstruction: the steps of `superpoint map`, one module each."""
