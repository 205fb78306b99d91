"""What people ask a running job: ``dssync status | top | drain | kick | scale | log``."""
