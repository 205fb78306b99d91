"""Runs a DSSyncJob manifest on this machine: pods become launcher processes, the arbiter a file."""
