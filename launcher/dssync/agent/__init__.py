"""The launcher: supervises workers, holds the control connection, serves metrics."""
