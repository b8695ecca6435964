"""What a user runs on their own machine: doctor, fit, serve, cluster, demo."""
