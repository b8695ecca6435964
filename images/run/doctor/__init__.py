"""`invoke doctor`: what of this machine is right, what is wrong, what to do, and which image fits."""
