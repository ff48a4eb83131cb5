"""Sweeps that run without the machine that started them: launched as a job of a cluster, looked at from anywhere."""
